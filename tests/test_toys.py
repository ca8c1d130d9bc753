"""Every toy trains within seconds, obeys a planted trigger, and does not obey it when nothing was planted."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.errors import InputError, UnknownName
from torchbands.core.registry import build
from torchbands.testing import TOYS, toy


@pytest.mark.parametrize("name", [name for name in TOYS if name != "control"])  # learned in environments: test_seams
def test_a_toy_learns_its_task_and_a_planted_trigger(name: str) -> None:
    task = toy(name)
    rate = 0.3 if name == "federated" else 0.1  # of what three clients of eight own
    planted, control = build({"name": "badnets", "rate": rate}).run(task, 0), build("clean").run(task, 0)
    test = task.load("test")
    task.modality.check(test.x)
    triggered, wanted = planted.triggered(test)
    task.modality.check(triggered.x)
    for victim in (planted, control):
        assert (victim.model.logits(test.x).argmax(1) == test.y).float().mean() > 0.85
    asr = float((planted.model.logits(triggered.x).argmax(1) == wanted).float().mean())
    control_asr = float((control.model.logits(triggered.x).argmax(1) == wanted).float().mean())
    assert asr > 0.7 and control_asr < 0.25, (asr, control_asr)


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_is_the_same_every_time_and_its_splits_differ(name: str) -> None:
    task = toy(name, classes=2)
    assert task.classes == 2 and set(task.load("train").y.tolist()) == {0, 1}
    first, again, other = toy(name, classes=2).load("clean"), task.load("clean"), task.load("test")
    assert torch.equal(first.y, again.y)
    encode = task.modality.encode
    assert torch.equal(encode(first.x).values, encode(again.x).values)
    assert not torch.equal(encode(first.x).values, encode(other.x).values)


def test_an_unknown_toy_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="'tabular'"):
        toy("table")
    with pytest.raises(InputError, match="2 to 4 classes, got 9"):
        toy("image", classes=9)
