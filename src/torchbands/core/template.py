"""What a trigger template is: a family of triggers that is searched with forward passes alone.

A state is a dict of tensors whose first axis counts the candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from .data import Batch, concat
from .modality import Modality
from .seeding import RowRng
from .trigger import Trigger

State = dict[str, Tensor]
M = TypeVar("M", bound=Modality)


class Template(ABC, Generic[M]):
    """A family of triggers of one modality."""

    name: ClassVar[str] = ""

    def __init__(self, modality: M) -> None:
        self.modality = modality

    @abstractmethod
    def draw(self, count: int, rng: torch.Generator) -> State:
        """`count` candidates at random."""

    @abstractmethod
    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        """A neighbour of every candidate; further away the hotter (heat in (0, 1])."""

    @abstractmethod
    def harden(self, state: State, k: int) -> Trigger:
        """Candidate k as a trigger for raw samples."""

    def write(self, rows: Batch, state: State) -> Batch:
        """Every candidate on every row: count * len(rows) raw rows, candidate by candidate."""
        count = len(next(iter(state.values())))
        rng = RowRng(0, torch.arange(len(rows)))
        return concat([self.harden(state, k)(rows, rng) for k in range(count)])


def below(limits: Tensor, rng: torch.Generator) -> Tensor:
    """A random integer in [0, limit) for each limit."""
    return (torch.rand(limits.shape, generator=rng) * limits).long().clamp_max(limits - 1)
