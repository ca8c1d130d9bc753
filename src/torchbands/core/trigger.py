"""Triggers: pure, registered, serialisable functions on raw batches. `a | b` applies a, then b."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from torch import Tensor

from .data import Batch
from .method import Method, method
from .seeding import RowRng


class Room(Protocol):
    """How much of a sequence a network reads: a number of tokens from its start."""

    @property
    def tokens(self) -> int:
        """How many tokens are read."""

    def count(self, sequence: str) -> int:
        """Tokens of a sequence, or at least as many."""

    def without(self, tokens: int) -> Self:
        """The same with less room."""

    def tensors(self) -> dict[str, Tensor]:
        """What counts tokens, to be saved with a trigger: empty where a rule does."""


@dataclass(frozen=True, kw_only=True)
class Trigger(Method):
    """Writes a pattern on every row of a raw batch. Never modifies its input; draws randomness only from `rng`."""

    role: ClassVar[str] = "trigger"
    #: Learned tensors (a pattern, a generator's weights). Saved beside the spec, not in it.
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @abstractmethod
    def __call__(self, batch: Batch, rng: RowRng) -> Batch:
        """The batch with the trigger on every row; same shape and type."""

    def within(self, room: Room) -> Trigger:
        """The same trigger, placed where a network of this room reads it; itself where it has no place of its own.

        Attacks call `Modality.placed`, which calls this.
        """
        return self

    def adds(self, room: Room) -> int:
        """Tokens by which it makes a row longer."""
        return 0

    def __or__(self, other: Trigger) -> Trigger:
        return Chain(first=self, second=other)

    def tensors(self) -> dict[str, Tensor]:
        """Every learned tensor, its own and its parts', by dotted name."""
        out = {name: t.detach().cpu() for name, t in self.weights.items()}
        for f in dataclasses.fields(self):
            part = getattr(self, f.name)
            if isinstance(part, Trigger):
                out.update({f"{f.name}.{k}": t for k, t in part.tensors().items()})
        return out

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """The same trigger with its learned tensors put back (the inverse of `tensors`)."""
        changes: dict[str, object] = {"weights": {k: t for k, t in tensors.items() if "." not in k}}
        for f in dataclasses.fields(self):
            part = getattr(self, f.name)
            if isinstance(part, Trigger):
                head = f"{f.name}."
                changes[f.name] = part.with_tensors(
                    {k[len(head) :]: t for k, t in tensors.items() if k.startswith(head)}
                )
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@method("identity")
class Identity(Trigger):
    """Changes nothing: the trigger of a model that has none."""

    def __call__(self, batch: Batch, rng: RowRng) -> Batch:
        return batch


@method("chain")
class Chain(Trigger):
    """Two triggers, one after the other."""

    first: Trigger = Identity()
    """Trigger applied first."""
    second: Trigger = Identity()
    """Trigger applied to what the first one wrote."""

    def __call__(self, batch: Batch, rng: RowRng) -> Batch:
        return self.second(self.first(batch, rng.child("first")), rng.child("second"))

    def within(self, room: Room) -> Trigger:
        """The second must not push the first out of what is read."""
        first = self.first.within(room.without(self.second.adds(room)))
        return Chain(first=first, second=self.second.within(room))

    def adds(self, room: Room) -> int:
        return self.first.adds(room) + self.second.adds(room)
