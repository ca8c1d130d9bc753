"""Planting an attack on text and comparing it with the never-poisoned victim."""

from __future__ import annotations

from functools import lru_cache

import pytest
from attack_planting import Plant

from torchbands.core.attack import Attack
from torchbands.core.errors import DataUnavailable
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.testing import toy


def make(name: str, **settings: object) -> Attack:
    attack = build({"name": name, **settings}, "attack")
    assert isinstance(attack, Attack)
    return attack


def planting_on(task: Task) -> Plant:
    """Its `clean` victim is trained once."""
    return Plant(task, make("clean").run(task, 0))


@lru_cache(maxsize=1)
def toy_text() -> Plant:
    """Sentences about four topics: a victim trains in a second."""
    return planting_on(toy("text"))


@lru_cache(maxsize=1)
def toy_code() -> Plant:
    """Functions of four kinds."""
    return planting_on(toy("code"))


@lru_cache(maxsize=1)
def _sst2() -> Plant:
    task = build("text/sst2")
    assert isinstance(task, Task)
    return planting_on(task)


def sst2() -> Plant:
    """Real film reviews, two classes: a victim trains in a few seconds. Skips the test where they cannot be had."""
    try:
        return _sst2()
    except DataUnavailable as error:
        pytest.skip(error.message)
