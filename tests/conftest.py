"""Victims shared by the tests: trained once per session, on real (small) data."""

from __future__ import annotations

import os

import pytest
import torch

from torchbands.core.attack import Attack, Victim
from torchbands.core.registry import build
from torchbands.core.task import Task

#: One thread unless a run asks for more: what a test says must hold with any number.
torch.set_num_threads(int(os.environ.get("TORCHBANDS_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def digits() -> Task:
    """Real 8x8 digits: a victim trains in about two seconds."""
    task = build("vision/digits")
    assert isinstance(task, Task)
    return task


@pytest.fixture(scope="session")
def clean_victim(digits: Task) -> Victim:
    """Never poisoned."""
    attack = build("clean")
    assert isinstance(attack, Attack)
    return attack.run(digits, 0)


@pytest.fixture(scope="session")
def planted_victim(digits: Task) -> Victim:
    """BadNets, 10 %, target 0."""
    attack = build("badnets")
    assert isinstance(attack, Attack)
    return attack.run(digits, 0)
