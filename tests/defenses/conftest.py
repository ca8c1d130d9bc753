"""Victims of the defense tests: real digits with more clean rows for the defender, and less poison to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task

#: Clean accuracy, attack success rate.
Rates = tuple[float, float]


@pytest.fixture(scope="session")
def generous(digits: Task) -> Task:
    """Digits with 287 clean rows."""
    return digits.but(held_out=0.2)


def _plant(name: str, task: Task, **settings: object) -> Victim:
    attack = build(name).but(**settings)
    assert isinstance(attack, Attack)
    return attack.run(task, 0)


@pytest.fixture(scope="session")
def backdoored(generous: Task) -> Victim:
    """BadNets, 5 % of the rows: a third of the target class."""
    return _plant("badnets", generous, rate=0.05)


@pytest.fixture(scope="session")
def untouched(generous: Task) -> Victim:
    """The clean sibling."""
    return _plant("clean", generous)


@pytest.fixture(scope="session")
def clean(generous: Task) -> Data:
    """The defender's rows."""
    return generous.load("clean")[:]


@pytest.fixture(scope="session")
def poisoned_rows(backdoored: Victim) -> tuple[Data, Tensor]:
    """What a filter sees of the training data, and the truth."""
    data = backdoored.training_data()
    assert data.poisoned is not None
    return data.blind(), data.poisoned


@pytest.fixture(scope="session")
def rates(generous: Task) -> Callable[[Model, Victim], Rates]:
    """CA and ASR of a model under a victim's trigger, on test rows that no defense sees."""
    test = generous.load("test")

    def measure(model: Model, victim: Victim) -> Rates:
        triggered, wanted = victim.triggered(test)
        return (
            float((model.logits(test.x).argmax(1) == test.y).float().mean()),
            float((model.logits(triggered.x).argmax(1) == wanted).float().mean()) if len(wanted) else 0.0,
        )

    return measure
