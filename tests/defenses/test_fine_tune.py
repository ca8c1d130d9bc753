"""Fine-tuning moves weights towards the clean labels; the shared loop keeps its promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.defenses.repair.fine_tune import FineTune
from torchbands.learners.finetune import Closure, finetune


def test_learns_the_clean_rows(
    backdoored: Victim, clean: Data, rates: Callable[[Model, Victim], tuple[float, float]]
) -> None:
    damaged = backdoored.model.clone()
    with torch.no_grad():
        damaged.module.get_submodule("head").weight.mul_(torch.linspace(0, 1, 10)[:, None])  # type: ignore[union-attr]
    before = rates(damaged, backdoored)[0]
    after = rates(FineTune().repair(damaged, clean), backdoored)[0]
    assert before < 0.8 and after > 0.93


def test_a_longer_and_faster_run_weakens_the_backdoor(
    backdoored: Victim, clean: Data, rates: Callable[[Model, Victim], tuple[float, float]]
) -> None:
    ca, asr = rates(backdoored.model, backdoored)
    tuned_ca, tuned_asr = rates(FineTune(epochs=60, lr=0.1).repair(backdoored.model, clean), backdoored)
    assert asr > 0.95 and tuned_asr < asr - 0.1
    assert tuned_ca > ca - 0.05


def test_every_row_is_seen_once_an_epoch_in_even_batches(untouched: Victim, clean: Data) -> None:
    model, sizes = untouched.model.clone(), []
    seen = model.passes.forward

    def step(closure: Closure, optimizer: torch.optim.Optimizer) -> None:
        before = model.passes.forward
        closure()
        optimizer.step()
        sizes.append(model.passes.forward - before)

    finetune(model, clean, epochs=2, batch=100, step=step)
    assert model.passes.forward - seen == 2 * len(clean)
    assert len(sizes) == 6 and max(sizes) - min(sizes) <= 1


def test_a_loss_that_blows_up_is_reported(untouched: Victim, clean: Data) -> None:
    with pytest.raises(InputError, match="fine-tuning"):
        finetune(untouched.model.clone(), clean, epochs=5, lr=1e12)
