"""Unlearning: the trigger's rows get true labels, the backdoor goes, and a detector may find the trigger itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.defenses.repair.fine_tune import FineTune
from torchbands.defenses.repair.unlearn import Unlearn, stamped_rows
from torchbands.triggers.image import Patch

Rates = Callable[[Model, Victim], tuple[float, float]]


def test_which_rows_carry_the_trigger() -> None:
    y = torch.arange(200) % 4
    rows = stamped_rows(y, 0.2, target=1, source=None, seed=0)
    assert len(rows) == 40 == len(rows.unique()) and not (y[rows] == 1).any()
    assert torch.equal(rows, stamped_rows(y, 0.2, 1, None, 0))
    assert not torch.equal(rows, stamped_rows(y, 0.2, 1, None, 1))
    some = stamped_rows(y, 0.1, target=1, source=3, seed=0)
    assert int((y[some] == 3).sum()) >= 25 and len(some) == len(some.unique()) and not (y[some] == 1).any()


def test_a_known_trigger_is_unlearned_where_fine_tuning_leaves_it(
    backdoored: Victim, clean: Data, rates: Rates
) -> None:
    ca, asr = rates(backdoored.model, backdoored)
    tuned = rates(FineTune(epochs=10).repair(backdoored.model, clean), backdoored)
    after, left = rates(Unlearn().without((backdoored.trigger,), backdoored.model, clean, target=0), backdoored)
    assert asr > 0.95 and tuned[1] > 0.6 and left < 0.1
    assert after > ca - 0.06  # 2 to 4 points, by seed and processor


class Tells(ModelDetector):
    """Names the planted trigger."""

    name = "tells"

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        return Finding(score=1.0, target=0, trigger=Patch())


def test_what_the_detector_finds_is_what_is_unlearned(backdoored: Victim, clean: Data, rates: Rates) -> None:
    repaired = Unlearn(search=Tells()).repair(backdoored.model, clean, seed=4)
    told = Unlearn().without((Patch(),), backdoored.model, clean, target=0, seed=4)
    assert torch.equal(repaired.logits(clean.x), told.logits(clean.x))
    assert rates(repaired, backdoored)[1] < 0.1


def test_every_round_searches_again(backdoored: Victim, clean: Data, rates: Rates) -> None:
    quick = Unlearn(search=build("target-inversion"), epochs=4)  # type: ignore[arg-type]
    once = quick.without((backdoored.trigger,), backdoored.model, clean, target=0)
    before = backdoored.model.passes.forward
    thrice = quick.but(rounds=3).without((backdoored.trigger,), backdoored.model, clean, target=0)
    passes = backdoored.model.passes.forward - before
    assert passes > 3 * 4 * len(clean)
    assert rates(thrice, backdoored)[1] < 0.1
    assert not torch.equal(once.logits(clean.x), thrice.logits(clean.x))


def test_a_detector_without_a_trigger_is_declined(backdoored: Victim, clean: Data) -> None:
    with pytest.raises(NotApplicable, match="no trigger"):
        Unlearn(search=build("channel-lipschitz", "model-detector")).repair(  # type: ignore[arg-type]
            backdoored.model, clean
        )


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"rounds": 0}):
        with pytest.raises(InputError):
            Unlearn(**wrong)
