"""What every image attack owes: exact rates, augmented poison, honest evaluation, a trigger the network can see."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant, took
from torch import Tensor

from torchbands.attacks.badnets import BadNets
from torchbands.attacks.images import draft
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng, generator
from torchbands.core.task import Task
from torchbands.learners.sgd import SGD
from torchbands.testing import toy

IMAGE_ATTACKS = ["badnets", "blended", "sig", "label-consistent", "adaptive-blend", "wanet", "input-aware"]
FLIPPING = ["badnets", "blended", "adaptive-blend"]


def make(name: str, **settings: object) -> Attack:
    attack = build({"name": name, **settings}, "attack")
    assert isinstance(attack, Attack)
    return attack


@pytest.mark.parametrize("name", IMAGE_ATTACKS)
def test_the_trigger_reaches_an_untrained_network(name: str, digits: Task) -> None:
    model, x = digits.fresh(0), digits.load("test")[:64].x
    stamped = make(name).test_trigger(digits, 0)(x, RowRng(0, torch.arange(64)))
    assert (model.logits(stamped) - model.logits(x)).abs().amax(1).gt(1e-4).float().mean() > 0.9
    digits.modality.check(stamped)


@pytest.mark.parametrize("name", FLIPPING)
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1])
def test_the_rate_is_exact_and_the_target_class_is_left_alone(name: str, rate: float, digits: Task) -> None:
    clean = digits.load("train")
    data = make(name, rate=rate, target=4).poison(clean, digits, 0)
    assert data.poisoned is not None and int(data.poisoned.sum()) == round(rate * len(clean))
    assert (clean.y[data.poisoned] != 4).all() and (data.y[data.poisoned] == 4).all()


@pytest.mark.parametrize("name", ["blended", "wanet", "input-aware"])
def test_rows_already_of_the_wanted_class_never_count(name: str, digits: Task) -> None:
    attack = make(name, target=7)
    victim = Victim(digits, attack, 0, digits.fresh(0), attack.test_trigger(digits, 0))
    test = digits.load("test")
    rows, wanted = victim.triggered(test)
    assert len(rows) == int((test.y != 7).sum()) and (rows.y != 7).all() and (wanted == 7).all()


def test_all_to_all_is_learned_and_judged_by_the_next_class(plant: Plant) -> None:
    planted = plant("blended", labels="all-to-all", rate=0.2, alpha=0.4)
    rows, wanted = planted.victim.triggered(plant.task.load("test"))
    assert torch.equal(wanted, (rows.y + 1) % 10) and len(rows) == len(plant.task.load("test"))
    took(planted, asr=0.7, drop=0.06)


def test_source_specific_leaves_other_classes_alone(plant: Plant) -> None:
    planted = plant("blended", labels="source-specific", source=1, rate=0.05, alpha=0.4)
    took(planted, asr=0.8, drop=0.06)
    test = plant.task.load("test")
    others = test[(test.y > 1).nonzero().flatten()]
    stamped = planted.victim.trigger(others.x, RowRng(0, torch.arange(len(others))))
    assert float((planted.victim.model.logits(stamped).argmax(1) == 0).float().mean()) < 0.2


class Picky(BadNets):
    """Its trigger cannot be written on every third row."""

    def writable(self, data: Data, task: Task, seed: int) -> Tensor:
        return torch.arange(len(data)) % 3 != 0


def test_cover_rows_are_writable_and_neither_of_the_source_nor_of_the_target(digits: Task) -> None:
    clean = digits.load("train")
    attack = Picky(labels="source-specific", source=1, target=4, rate=0.05)
    data = attack.poison(clean, digits, 0)
    cover, writable = data.meta["cover"], attack.writable(clean, digits, 0)
    assert data.poisoned is not None and int(cover.sum()) == int(data.poisoned.sum()) == round(0.05 * len(clean))
    assert set(clean.y[cover].tolist()) == set(range(10)) - {1, 4} and torch.equal(data.y[cover], clean.y[cover])
    assert writable[cover].all() and writable[data.poisoned].all() and set(clean.y[data.poisoned].tolist()) == {1}
    two = toy("text", classes=2)
    covered = make("badnets", labels="source-specific", rate=0.2).poison(two.load("train"), two, 0)
    assert not covered.meta["cover"].any(), "with two classes there is no other class"


@pytest.mark.parametrize("name", ["wanet", "input-aware"])
def test_controlled_training_obeys_all_to_all(name: str, digits: Task) -> None:
    attack = make(name, labels="all-to-all")
    y = digits.load("train").y[:100]
    hit, noise, cover = draft(attack, y, 10, 0.1)
    assert len(hit) == 10 and len(noise) == 10 and len(cover) == 0
    assert not set(hit.tolist()) & set(noise.tolist())
    assert torch.equal(attack.relabel(y[hit], 10), (y[hit] + 1) % 10)


@pytest.mark.parametrize("name", ["badnets", "blended", "sig"])
def test_poisoned_rows_are_augmented_like_the_others(name: str, digits: Task) -> None:
    """The trigger is written first: a shifted row carries a shifted trigger."""
    attack = make(name)
    data = attack.poison(digits.load("train"), digits, 0)
    assert data.poisoned is not None
    rows = data[data.poisoned.nonzero().flatten()[:40]]
    shifted = SGD(augment="shift", pad=1).augmenter(generator("augment"))(rows.x)
    moved = (shifted != rows.x).flatten(1).any(1).float().mean()
    assert float(moved) > 0.5
    near = [torch.roll(rows.x, (a, b), (2, 3))[:, :, 2:-2, 2:-2] for a in (-1, 0, 1) for b in (-1, 0, 1)]
    same = torch.stack([(shifted[:, :, 2:-2, 2:-2] == n).flatten(1).all(1) for n in near]).any(0)
    assert same.all()


@pytest.mark.parametrize("name", ["sig", "label-consistent", "adaptive-blend", "wanet", "input-aware"])
def test_image_attacks_decline_other_samples(name: str) -> None:
    with pytest.raises(NotApplicable, match="images"):
        make(name).test_trigger(toy("text"), 0)


def test_blended_mixes_other_samples_too() -> None:
    task = toy("tabular")
    x = task.load("test")[:8].x
    stamped = make("blended").test_trigger(task, 0)(x, RowRng(0, torch.arange(8)))
    task.modality.check(stamped)
    assert not torch.equal(stamped, x)
