"""SCAn: the contaminated class stands out, a clean data set has none, and the clean rows orient the groups."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.defenses.data.statistical_contamination import StatisticalContamination, _untangle
from torchbands.measures.effectiveness import auroc, ties


def test_finds_the_class_and_the_rows(
    backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor], clean: Data
) -> None:
    data, truth = poisoned_rows
    suspicion = StatisticalContamination().score(data, backdoored.model, clean=clean)
    index = suspicion.evidence["class_index"]
    assert max(index, key=index.get) == "0" and index["0"] > 7.39
    assert auroc(suspicion.scores[truth], suspicion.scores[~truth]) > 0.97
    assert suspicion.flagged is not None
    assert float(suspicion.flagged[truth].float().mean()) > 0.9
    assert float(suspicion.flagged[~truth].float().mean()) < 0.05


def test_flags_nothing_in_clean_data(untouched: Victim, clean: Data) -> None:
    suspicion = StatisticalContamination().score(untouched.training_data().blind(), untouched.model, clean=clean)
    assert suspicion.flagged is not None and not suspicion.flagged.any()


def test_the_clean_rows_say_which_group_is_foreign() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 8, generator=rng)
    rows[:200] += 6  # the foreign group is the larger one
    ratio, foreign = _untangle(rows, torch.randn(40, 8, generator=rng), 50, 0)
    assert torch.equal(foreign > 0, torch.arange(300) < 200)
    alone, _ = _untangle(torch.randn(300, 8, generator=rng), torch.randn(40, 8, generator=rng), 50, 0)
    assert float(ratio) > 50 * float(alone.abs())


def test_two_classes_are_ranked_and_not_judged(
    backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor], clean: Data
) -> None:
    data, truth = poisoned_rows
    two, truth = data[data.y < 2], truth[data.y < 2]
    suspicion = StatisticalContamination().score(two, backdoored.model, clean=clean)
    assert suspicion.flagged is None
    assert auroc(suspicion.scores[truth], suspicion.scores[~truth]) > 0.9


def test_asks_for_clean_rows(untouched: Victim) -> None:
    with pytest.raises(InputError, match="clean"):
        StatisticalContamination().score(untouched.training_data().blind(), untouched.model)


def test_scores_have_no_ties_and_tell_rows_of_a_class_below_the_median(
    backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor], clean: Data
) -> None:
    """Half of the classes lie below the median; with their index as a factor all their rows had score 0."""
    data, truth = poisoned_rows
    suspicion = StatisticalContamination().score(data, backdoored.model, clean=clean)
    assert ties(suspicion.scores[truth], suspicion.scores[~truth]) < 0.001
    for label in range(10):
        assert len(suspicion.scores[data.y == label].unique()) > 0.9 * int((data.y == label).sum())
    rng = torch.Generator().manual_seed(0)
    wide = torch.cat([torch.randn(200, 8, generator=rng), torch.randn(100, 8, generator=rng) + 9])
    ratio, odds = _untangle(wide, torch.randn(40, 8, generator=rng), 50, 0)
    assert len(odds.unique()) > 290 and float(odds[200:].min()) > float(odds[:200].max()) and float(ratio) > 0
