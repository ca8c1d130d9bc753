"""Blended: the paper's formula, and a backdoor that takes."""

from __future__ import annotations

import torch
from attack_planting import Plant, took

from torchbands.core.seeding import RowRng, generator
from torchbands.core.task import Task
from torchbands.modalities.image import Image
from torchbands.triggers.blend import Blend


def test_takes(plant: Plant) -> None:
    took(plant("blended"), asr=0.95)


def test_formula() -> None:
    image = Image(channels=3, size=8)
    x = torch.rand(5, 3, 8, 8)
    pattern = torch.rand(1, 3, 8, 8, generator=generator("blend", 4))
    out = Blend(alpha=0.25, seed=4, modality=image)(x, RowRng(0, torch.arange(5)))
    torch.testing.assert_close(out, 0.75 * x + 0.25 * pattern)
    torch.testing.assert_close(out, Blend(alpha=0.25, seed=4)(x, RowRng(0, torch.arange(5))))


def test_each_seed_has_its_own_pattern(digits: Task) -> None:
    from torchbands.attacks.blended import Blended

    x = torch.zeros(1, 1, 8, 8)
    rng = RowRng(0, torch.arange(1))
    assert not torch.equal(Blended().test_trigger(digits, 0)(x, rng), Blended().test_trigger(digits, 1)(x, rng))
