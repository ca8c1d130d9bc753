"""The test of a whole batch is exact, sees what no single p-value can, and says when it could not look."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from torchbands.core.data import Batch, Column, Data
from torchbands.core.defense import FittedDetector, InputDetector
from torchbands.core.registry import build
from torchbands.scanner.batch_test import batch_p, clean_to_name_one, depths, fewest, tails
from torchbands.scanner.guard import Guard, discoveries
from torchbands.scanner.inputs import judge_inputs
from torchbands.scanner.rows import Rows
from torchbands.testing import toy


def conformal(scores: Tensor, clean: Tensor) -> Tensor:
    """As `Guard.p_values`, the slow way."""
    return ((clean[None] >= scores[:, None]).sum(1) + 1).double() / (len(clean) + 1)


@pytest.mark.parametrize(("clean", "inputs"), [(6, 4), (4, 6), (9, 2)])
def test_every_order_of_scores_is_as_likely_and_p_is_their_share(clean: int, inputs: int) -> None:
    found: Counter[float] = Counter()
    above: Counter[int] = Counter()
    for places in combinations(range(clean + inputs), clean):
        held = torch.zeros(clean + inputs, dtype=torch.bool)
        held[list(places)] = True
        scores = torch.arange(clean + inputs, dtype=torch.float64)
        found[round(batch_p(conformal(scores[~held], scores[held]), clean), 9)] += 1
        above[int((scores[~held] > scores[held].sort(descending=True).values[1]).sum())] += 1
    total, below = sum(found.values()), 0
    for p in sorted(found):
        below += found[p]
        assert p == pytest.approx(below / total, abs=1e-9)
    assert len(depths(clean)) > 1
    for k in range(inputs + 1):
        assert tails(2, clean, inputs)[k] == pytest.approx(sum(n for a, n in above.items() if a >= k) / total)


def test_level_holds_for_any_batch_and_in_ties() -> None:
    rng = torch.Generator().manual_seed(0)
    for clean, inputs, ties in ((60, 80, False), (400, 30, False), (60, 80, True)):
        hits = 0
        for _ in range(400):
            scores = torch.rand(clean + inputs, generator=rng)
            scores = (scores * 5).floor() if ties else scores
            hits += batch_p(conformal(scores[clean:], scores[:clean]), clean) <= 0.05
        assert hits <= 400 * 0.05 + 4 * (400 * 0.05 * 0.95) ** 0.5


def test_least_numbers_are_the_least() -> None:
    assert fewest(19, 1, 0.05) == 1 and fewest(18, 1, 0.05) is None
    for clean, inputs in ((19, 100), (230, 1000), (4000, 10000)):
        least = fewest(clean, inputs, 0.05)
        assert least is not None
        for count, seen in ((least, True), (least - 1, False)):
            p = torch.full((inputs,), 1.0, dtype=torch.float64)
            p[:count] = 1 / (clean + 1)
            assert (batch_p(p, clean) <= 0.05) is seen
    assert clean_to_name_one(100, 0.05) == 1999
    one = torch.ones(100, dtype=torch.float64)
    for clean, named in ((1999, 1), (1998, 0)):
        one[0] = 1 / (clean + 1)
        assert int(discoveries(one, 0.05).sum()) == named


@dataclass
class Brightness(FittedDetector):
    """Scores an image by its mean, or all alike."""

    blind: bool = False
    threshold: float | None = None

    def score(self, x: Batch | Column) -> Tensor:
        found = x[torch.arange(len(x))].flatten(1).mean(1)  # type: ignore[union-attr]
        return found * 0 if self.blind else found

    def state(self) -> Any:
        raise NotImplementedError


def judged(bright: int, *, clean: int = 19, total: int = 100, blind: bool = False) -> Any:
    """The outcome for `total` dim images of which `bright` are brighter than all clean ones."""
    task, rng = toy("image"), torch.Generator().manual_seed(1)
    x = torch.rand(total, 1, 1, 1, generator=rng) * 0.4 * torch.ones(total, 1, 12, 12)
    x[:bright] += 0.5
    calibration = (torch.rand(clean, generator=rng) * 0.4).sort().values
    detector = build("strip", "input-detector")
    assert isinstance(detector, InputDetector)
    guard = Guard.restored(
        task.fresh(0), detector, Brightness(blind), calibration * (not blind), alpha=0.05, seed=0, overhead=1.0
    )
    names = tuple("abcd")
    return judge_inputs(guard, Rows(Data(x, torch.zeros(total).long()), task.modality, names, "inputs"))[0]


def test_half_a_batch_above_all_clean_rows_is_seen_though_no_row_can_be_named() -> None:
    outcome = judged(50)
    assert outcome.verdict == "indicated" and outcome.exit_code() == 1
    assert outcome.alerts[0].facts["named"] == 0 and outcome.alerts[0].facts["p_batch"] < 1e-3
    assert "1999 could name a single one" in outcome.sentence()
    assert len(outcome.alerts[0].facts["worst"]) == 12
    named = judged(50, clean=400)
    assert named.alerts[0].facts["named"] >= 50 and "look triggered" in named.sentence()


def test_ordinary_batches_are_none_and_say_what_they_could_not_show() -> None:
    outcome = judged(0)
    assert outcome.verdict == "none" and outcome.exit_code() == 0
    assert f"fewer than {fewest(19, 100, 0.05)} triggered" in outcome.sentence()


def test_no_power_is_inconclusive() -> None:
    assert judged(0, clean=5, total=1).verdict == "inconclusive"
    outcome = judged(0, blind=True)
    assert outcome.verdict == "inconclusive" and outcome.exit_code() == 3 and "one score" in outcome.sentence()
