"""Victims shared by the tests: trained once per session, on real (small) data."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from torchbands.core.attack import Attack, Victim
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import generator
from torchbands.core.task import Task

#: One thread unless a run asks for more: what a test says must hold with any number.
torch.set_num_threads(int(os.environ.get("TORCHBANDS_TEST_THREADS", "1")))
#: Above 0, the weights of every fresh network are moved by a millionth, as another processor would (portable.py).
JITTER = int(os.environ.get("TORCHBANDS_TEST_JITTER", "0"))


@pytest.fixture(scope="session", autouse=True)
def _jitter() -> Iterator[None]:
    if not JITTER:
        yield
        return
    fresh = Task.fresh

    def moved(self: Task, seed: int) -> Model:
        model, rng = fresh(self, seed), generator("jitter", JITTER, seed)
        with torch.no_grad():
            for p in model.module.parameters():
                p.mul_(1 + 1e-6 * torch.randn(p.shape, generator=rng).to(p))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "fresh", moved)
        yield


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """How one test opened a suspect is not written to the working folder, where the next one would read it."""
    monkeypatch.setattr("torchbands.cli.suspect_file.NAME", "/nowhere/suspect.toml")


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
