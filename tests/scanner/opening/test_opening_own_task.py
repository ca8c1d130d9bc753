"""A victim of a task from the user's own file or package: the child finds what this process runs, and no more."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchbands.cli.own_methods import _module
from torchbands.core.method import METHODS
from torchbands.core.registry import build
from torchbands.scanner.opening import Limits
from torchbands.scanner.opening.private import Private
from torchbands.scanner.opening.process import Child
from torchbands.scanner.opening.victim import _own_modules
from torchbands.testing.toys import toy

TASK = '''
from typing import ClassVar

import torch

from torchbands import Modality, method
from torchbands.modalities.observation import Observation
from torchbands.testing import Toy


@method("leaning")
class Leaning(Observation):
    """Observations of its own name."""


@method("toy/leaning")
class ToyLeaning(Toy):
    """Rows of them."""

    modality: ClassVar[Modality] = Leaning(shape=(3,))

    def draw(self, y, rng):
        return torch.randn(len(y), 3, generator=rng) + y[:, None]
'''


@pytest.fixture(params=["leaning_task.py", "json.py"])  # one that goes by its own name, and one that cannot
def module(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    file = tmp_path / str(request.param)
    file.write_text(TASK, "utf-8")
    path, before = list(sys.path), set(METHODS)
    made = _module(file)
    yield made.__name__
    sys.path[:] = path
    del sys.modules[made.__name__]
    for key in set(METHODS) - before:
        del METHODS[key]


def test_the_child_builds_a_task_of_the_users_own_file(module: str) -> None:
    task = build("toy/leaning", "task")
    own = _own_modules(task)
    assert list(own) == [module]
    with Private() as at, Child(f"network/{json.dumps(own)}", at, Limits(seconds=60)) as child:
        told = child.ask({"task": task.spec()})
    assert told["modality"]["name"] == "leaning" and told["classes"] == 4


def test_of_what_is_built_in_the_child_is_told_nothing() -> None:
    assert _own_modules(toy("text")) == {} and _own_modules(toy("federated")) == {}
