"""Victims of the attacks' tests."""

from __future__ import annotations

import pytest
from attack_planting import Plant

from torchbands.core.attack import Victim
from torchbands.core.task import Task


@pytest.fixture(scope="session")
def plant(digits: Task, clean_victim: Victim) -> Plant:
    return Plant(digits, clean_victim)
