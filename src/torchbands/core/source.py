"""Sources of training: rows or environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .data import Data


@dataclass(frozen=True)
class Environments:
    """Environments as a source of training.

    Attributes:
        make: (seed, index) -> one gymnasium environment. The same two give the same environment, and each index is one
            of those that a learner runs side by side.
    """

    make: Callable[[int, int], Any]


Source = Data | Environments
