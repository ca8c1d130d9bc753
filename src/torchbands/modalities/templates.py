"""Bases of trigger templates: a few slots of finitely many values, and numbers set within their ranges."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from torchbands.core.template import M, State, Template, below


class SlotTemplate(Template[M]):
    """A few positions, each with one of finitely many values."""

    slots: ClassVar[int] = 2

    @abstractmethod
    def choices(self) -> int:
        """How many values a slot can take."""

    def draw(self, count: int, rng: torch.Generator) -> State:
        return {"slots": torch.randint(self.choices(), (count, self.slots), generator=rng)}

    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        """One slot with a new value."""
        slots = state["slots"]
        one = torch.randint(self.slots, (len(slots), 1), generator=rng)
        fresh = torch.randint(self.choices(), (len(slots), 1), generator=rng)
        return {"slots": torch.where(torch.arange(self.slots) == one, fresh, slots)}


class ValuesTemplate(Template[M]):
    """One or two numbers of a row set to values in their range, ends of the range as likely as all between."""

    name = "values"

    @abstractmethod
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """(F,) columns that may be set, their lowest and their highest values."""

    def draw(self, count: int, rng: torch.Generator) -> State:
        return {"at": below(torch.full((count, 2), len(self.columns()[0])), rng), "level": self._level(count, rng)}

    def _level(self, count: int, rng: torch.Generator) -> Tensor:
        level = torch.rand(count, 2, generator=rng)
        return torch.where(torch.rand(count, 2, generator=rng) < 0.5, level.round(), level)

    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        fresh, count = self.draw(len(state["at"]), rng), len(state["at"])
        one = torch.arange(2) == torch.randint(2, (count, 1), generator=rng)
        place = one & (torch.rand(count, 1, generator=rng) < max(heat, 0.2))
        near = state["level"] + heat * (torch.rand(count, 2, generator=rng) - 0.5)
        level = torch.where(torch.rand(count, 1, generator=rng) < 0.5, near.clamp(0, 1), fresh["level"])
        return {"at": torch.where(place, fresh["at"], state["at"]), "level": torch.where(one, level, state["level"])}

    def settings(self, state: State, k: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Columns and values of candidate k; where both are the same column the second counts."""
        columns, low, high = self.columns()
        at, level = state["at"][k], state["level"][k]
        chosen = dict(zip(columns[at].tolist(), torch.lerp(low[at], high[at], level).tolist(), strict=True))
        return tuple(chosen), tuple(chosen.values())
