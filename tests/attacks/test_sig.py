"""SIG: small amplitudes on [0, 1] images, labels and other classes untouched."""

from __future__ import annotations

import math

import pytest
import torch
from attack_planting import Plant, took

from torchbands.attacks.sig import SIG
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.testing import toy
from torchbands.triggers.additive import Sinusoid


def test_takes_when_strong(plant: Plant) -> None:
    """8x8 images have few pixels to hide a wave in: it is stronger, on most of a class that is hard to tell."""
    took(plant("sig", rate=0.8, delta=0.3, test_delta=0.5, frequency=3, target=8), asr=0.8)


def test_amplitude_is_a_share_of_the_pixel_range() -> None:
    x = torch.full((2, 3, 32, 32), 0.5)
    out = Sinusoid(delta=20 / 255, frequency=6)(x, RowRng(0, torch.arange(2)))
    assert float((out - x).abs().max()) == pytest.approx(20 / 255, rel=1e-3)
    assert float(out[0, 0, 3, 5]) == pytest.approx(0.5 + 20 / 255 * math.sin(2 * math.pi * 6 * 5 / 32), abs=1e-6)
    assert torch.equal(out[:, :, :1].expand_as(out), out)  # columns, not rows


def test_labels_and_other_classes_are_untouched(digits: Task) -> None:
    attack = SIG(target=3)
    clean = digits.load("train")
    poisoned = attack.poison(clean, digits, 0)
    assert torch.equal(poisoned.y, clean.y)
    assert poisoned.poisoned is not None
    assert set(clean.y[poisoned.poisoned].tolist()) == {3}
    assert int(poisoned.poisoned.sum()) == round(0.3 * int((clean.y == 3).sum()))
    changed = (poisoned[:].x != clean[:].x).flatten(1).any(1)
    assert torch.equal(changed, poisoned.poisoned)


def test_training_carries_the_faint_wave_and_a_test_the_strong_one() -> None:
    task = toy("image")
    attack, clean = SIG(frequency=2), task.load("train")
    poisoned = attack.poison(clean, task, 0)
    assert poisoned.poisoned is not None
    taught = (poisoned[poisoned.poisoned].x - clean[poisoned.poisoned].x).max()
    asked = (attack.test_trigger(task, 0)(clean.x[:64], RowRng(0, torch.arange(64))) - clean.x[:64]).max()
    assert float(taught) == pytest.approx(20 / 255 * math.sin(math.pi / 3), rel=1e-3)
    assert float(asked) == pytest.approx(40 / 255 * math.sin(math.pi / 3), rel=1e-3)


def test_a_wave_that_is_zero_in_every_column_is_refused() -> None:
    for frequency in (6, 12):
        with pytest.raises(NotApplicable, match=f"{frequency} periods is zero in each of 12 columns"):
            SIG(frequency=frequency).test_trigger(toy("image"), 0)


def test_clean_label_refuses_other_label_rules() -> None:
    with pytest.raises(InputError, match="all-to-one"):
        SIG(labels="all-to-all")
