"""Label-consistent: bounded adversarial noise on the target class alone, marks in four corners."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant, took

from torchbands.attacks.label_consistent import LabelConsistent, pgd
from torchbands.bench import load_grid, presets
from torchbands.core.attack import Victim
from torchbands.core.errors import InputError
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.modalities.image import Image
from torchbands.triggers.additive import Corners, Stored


def test_presets_give_grey_images_the_eps_that_docstrings_ask_for() -> None:
    """Every attack that says what grey images need is given it by every preset with such images."""
    seen = set()
    for grid in map(load_grid, presets()):
        seen_by = [t.modality for t in grid.tasks if t.name.startswith("vision/")]  # a text's needs its data
        grey = [m for m in seen_by if isinstance(m, Image) and m.channels == 1]
        for attack in grid.attacks if grey else ():
            if "need a larger `eps`" in " ".join((type(attack).__doc__ or "").split()):
                seen.add(attack.name)
                assert getattr(attack, "eps") > 2 * getattr(type(attack)(), "eps")  # noqa: B009
    assert "label-consistent" in seen


def test_takes_when_strong(plant: Plant) -> None:
    """Grey digits need a large eps, and 1,365 rows most of the class."""
    took(plant("label-consistent", rate=0.75, eps=0.3), asr=0.85)


def test_noise_is_bounded_and_fools_the_surrogate(clean_victim: Victim, digits: Task) -> None:
    rows = digits.load("test")[:100]
    hard = pgd(clean_victim.model, rows.x, rows.y, 0.2, 20, RowRng(0, torch.arange(100)))
    assert float((hard - rows.x).abs().max()) <= 0.2 + 1e-6
    assert float(hard.min()) >= 0.0 and float(hard.max()) <= 1.0
    right = clean_victim.model.logits(rows.x).argmax(1) == rows.y
    still = clean_victim.model.logits(hard).argmax(1) == rows.y
    assert float(right.float().mean()) > 0.9 and float(still.float().mean()) < 0.3


def test_only_the_target_class_is_changed_and_labels_are_kept(digits: Task) -> None:
    attack = LabelConsistent(target=2, steps=3)
    clean = digits.load("train")
    poisoned = attack.poison(clean, digits, 0)
    assert poisoned.poisoned is not None and torch.equal(poisoned.y, clean.y)
    assert set(clean.y[poisoned.poisoned].tolist()) == {2}
    assert int(poisoned.poisoned.sum()) == round(0.25 * int((clean.y == 2).sum()))
    changed = (poisoned[:].x != clean[:].x).flatten(1).any(1)
    assert torch.equal(changed, poisoned.poisoned)


def test_training_marks_have_the_amplitude_that_is_asked(digits: Task) -> None:
    clean = digits.load("train")
    for amplitude in (0.25, 1.0):
        poisoned = LabelConsistent(size=2, amplitude=amplitude, eps=0.01, steps=1).poison(clean, digits, 0)
        assert poisoned.poisoned is not None
        before, after = clean[poisoned.poisoned].x, poisoned[poisoned.poisoned].x
        wanted = before[:, 0, 0, 0] + amplitude * (1 - before[:, 0, 0, 0])  # the corner goes so far towards white
        assert float((after[:, 0, 0, 0] - wanted).abs().max()) <= 0.011


def test_the_test_time_trigger_is_the_marks_alone(digits: Task) -> None:
    trigger = LabelConsistent(size=2, amplitude=0.5).test_trigger(digits, 0)
    assert trigger == Corners(size=2)
    out = trigger(torch.full((1, 1, 8, 8), 0.5), RowRng(0, torch.arange(1)))
    assert int((out != 0.5).sum()) == 4 * 4
    assert out[0, 0, 0, :2].tolist() == [1.0, 0.0] and out[0, 0, 7, 6:].tolist() == [0.0, 1.0]


def test_stored_noise_is_found_by_row_identity_and_refused_for_others() -> None:
    delta = torch.tensor([0.1, 0.2])[:, None, None, None].expand(2, 1, 2, 2)
    stored = Stored(weights={"rows": torch.tensor([3, 8]), "delta": delta})
    x = torch.zeros(3, 1, 2, 2)
    out = stored(x, RowRng(0, torch.tensor([8, 3, 8])))
    assert out[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1, 0.2])
    with pytest.raises(InputError, match="no perturbation"):
        stored(x, RowRng(0, torch.tensor([8, 3, 4])))
