"""Narcissus: a few rows of one class, labels kept, a stronger pattern at test time."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant

from torchbands.attacks.narcissus import Narcissus
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.triggers.universal import AddedPattern

pytestmark = pytest.mark.timeout(600)


def test_poison_makes_the_pattern_work_better_than_on_a_clean_model(plant: Plant) -> None:
    planted = plant("narcissus", rate=0.08, eps=0.1, target=8)
    assert isinstance(planted.seen.asr, float) and isinstance(planted.control.asr, float)
    assert isinstance(planted.seen.ca, float) and isinstance(planted.control.ca, float)
    assert planted.seen.asr > planted.control.asr + 0.1
    assert planted.seen.ca > planted.control.ca - 0.05


def test_the_rate_is_a_share_of_all_rows_of_the_target_class_alone(digits: Task) -> None:
    clean = digits.load("train")
    poisoned = Narcissus(rate=0.02, target=5, steps=5).poison(clean, digits, 0)
    assert poisoned.poisoned is not None and torch.equal(poisoned.y, clean.y)
    assert int(poisoned.poisoned.sum()) == round(0.02 * len(clean))
    assert set(clean.y[poisoned.poisoned].tolist()) == {5}
    gap = (poisoned[:].x - clean[:].x).flatten(1).abs()
    assert torch.equal(gap.amax(1) > 0, poisoned.poisoned) and float(gap.max()) <= 16 / 255 + 1e-6


@pytest.mark.parametrize(("rate", "rows"), [(0.0, 0), (1e-6, 1), (1.0, None)])
def test_rates_at_the_ends(rate: float, rows: int | None, digits: Task) -> None:
    clean = digits.load("train")
    poisoned = Narcissus(rate=rate, steps=1).poison(clean, digits, 0).poisoned
    assert poisoned is not None and int(poisoned.sum()) == (int((clean.y == 0).sum()) if rows is None else rows)


def test_the_test_time_pattern_is_magnified(digits: Task) -> None:
    attack = Narcissus(steps=5)
    planted, shown = attack.train_trigger(digits, 0), attack.test_trigger(digits, 0)
    assert isinstance(shown, AddedPattern) and (planted.scale, shown.scale) == (1.0, 3.0)
    x, rng = torch.full((1, 1, 8, 8), 0.5), RowRng(0, torch.arange(1))
    torch.testing.assert_close(shown(x, rng) - 0.5, 3 * (planted(x, rng) - 0.5))
