"""WaNet: a smooth warp, exact shares of every batch, other rows in every epoch."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant, Planted, took

from torchbands.attacks.wanet import WaNet, WarpBatches
from torchbands.core.attack import Attack
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.triggers.warp import Warp


@pytest.fixture(scope="module")
def warped(plant: Plant) -> Planted:
    """8x8 images need a stronger and smoother warp than the paper's (s .5, k 4)."""
    return plant("wanet", s=1.0, k=2)


def test_takes(warped: Planted) -> None:
    took(warped)


def test_poison_differs_each_epoch_so_there_is_no_poisoned_data_set(warped: Planted) -> None:
    with pytest.raises(NotApplicable, match="controls training"):
        warped.victim.training_data()


def hook(attack: WaNet, task: Task) -> WarpBatches:
    (made,) = attack.hooks(task, 0)
    assert isinstance(made, WarpBatches)
    made.classes = task.classes
    return made


def test_shares_of_a_batch_are_exact(digits: Task) -> None:
    rows = digits.load("train")[:200]
    attack = WaNet()
    x, y = hook(attack, digits).batch(rows.x, rows.y, torch.Generator().manual_seed(0))
    relabelled, changed = y != rows.y, (x != rows.x).flatten(1).any(1)
    assert int(relabelled.sum()) == 20 and (y[relabelled] == 0).all()
    assert int(changed.sum()) == 60
    right = attack.test_trigger(digits, 0)(rows.x, RowRng(0, torch.arange(200)))
    torch.testing.assert_close(x[relabelled], right[relabelled])
    noise = changed & ~relabelled
    assert not torch.isclose(x[noise], right[noise]).flatten(1).all(1).any()


def test_source_specific_covers_other_classes(digits: Task) -> None:
    rows = digits.load("train")[:400]
    attack = WaNet(labels="source-specific", source=1, rate=0.05)
    x, y = hook(attack, digits).batch(rows.x, rows.y, torch.Generator().manual_seed(0))
    assert (rows.y[y != rows.y] == 1).all() and int((y != rows.y).sum()) == 20
    right = attack.test_trigger(digits, 0)(rows.x, RowRng(0, torch.arange(400)))
    carries = torch.isclose(x, right).flatten(1).all(1) & (x != rows.x).flatten(1).any(1)
    assert int(carries.sum()) == 40 and (rows.y[carries & (y == rows.y)] != 1).all()


def test_the_batch_given_is_not_changed(digits: Task) -> None:
    rows = digits.load("train")[:50]
    x, y = rows.x.clone(), rows.y.clone()
    hook(WaNet(), digits).batch(rows.x, rows.y, torch.Generator().manual_seed(0))
    assert torch.equal(rows.x, x) and torch.equal(rows.y, y)


def test_no_strength_is_the_identity_and_strength_is_in_pixels() -> None:
    x, rng = torch.rand(2, 3, 28, 28), RowRng(0, torch.arange(2))
    torch.testing.assert_close(Warp(s=0.0)(x, rng), x, atol=1e-5, rtol=1e-5)
    still = Warp(s=0.0).grid(28, 28)
    moved = (Warp(s=2.0).grid(28, 28) - still) * 27 / 2  # from [-1, 1] to pixels
    assert 0.4 < float(moved.abs().mean()) < 1.5


def test_a_noisy_warp_does_not_depend_on_the_batch() -> None:
    x = torch.rand(4, 1, 8, 8)
    trigger = Warp(noise=1.0)
    whole = trigger(x, RowRng(3, torch.arange(4)))
    torch.testing.assert_close(trigger(x[[2]], RowRng(3, torch.tensor([2]))), whole[[2]])


def test_too_many_noise_rows_are_refused() -> None:
    with pytest.raises(InputError, match="cross_ratio"):
        WaNet(rate=0.5, cross_ratio=2.0)
    assert isinstance(WaNet(), Attack)
