"""Adaptive-Blend: half of the pieces per training row, cover rows with true labels."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant, took

from torchbands.attacks.adaptive_blend import AdaptiveBlend
from torchbands.core.errors import InputError
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.triggers.blend import Blend, BlendPieces


def test_takes_at_a_higher_rate(plant: Plant) -> None:
    """.3 % of 1,365 digits is 4 rows; ten times the rate and a stronger pattern show that it works."""
    took(plant("adaptive-blend", rate=0.05, cover=0.02, alpha=0.3, test_alpha=0.4), asr=0.9)


def test_poison_and_cover_are_exact_and_apart(digits: Task) -> None:
    clean = digits.load("train")
    poisoned = AdaptiveBlend(rate=0.02, cover=0.03).poison(clean, digits, 0)
    assert poisoned.poisoned is not None
    bad, cover = poisoned.poisoned, poisoned.meta["cover"]
    assert int(bad.sum()) == round(0.02 * len(clean)) and int(cover.sum()) == round(0.03 * len(clean))
    assert not (bad & cover).any()
    assert (poisoned.y[bad] == 0).all() and (clean.y[bad] != 0).all()
    assert torch.equal(poisoned.y[cover], clean.y[cover])
    changed = (poisoned[:].x != clean[:].x).flatten(1).any(1)
    assert torch.equal(changed, bad | cover)


def test_half_of_the_pieces_are_drawn_per_row() -> None:
    x = torch.zeros(6, 1, 16, 16)
    out = BlendPieces(alpha=0.5, keep=0.5)(x, RowRng(1, torch.arange(6)))
    pieces = (out.unfold(2, 4, 4).unfold(3, 4, 4) != 0).flatten(4).any(-1).flatten(1)
    assert pieces.sum(1).tolist() == [8] * 6
    assert len({tuple(row) for row in pieces.tolist()}) > 1
    alone = BlendPieces(alpha=0.5, keep=0.5)(x[:2], RowRng(1, torch.tensor([4, 2])))
    assert torch.equal(alone, out[[4, 2]])


def test_all_pieces_are_the_blended_trigger() -> None:
    x, rng = torch.rand(3, 3, 10, 10), RowRng(0, torch.arange(3))
    torch.testing.assert_close(BlendPieces(alpha=0.2, seed=5)(x, rng), Blend(alpha=0.2, seed=5)(x, rng))
    with pytest.raises(InputError, match="square"):
        BlendPieces(pieces=15)
