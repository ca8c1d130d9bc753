"""Triggers: pure, registered, saveable functions on raw batches. `a | b` writes a, then b."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import Tensor

from .data import Batch
from .method import Method, method
from .seeding import RowRng


@dataclass(frozen=True, kw_only=True)
class Trigger(Method):
    """Writes itself on every row of a raw batch. Never changes its input; draws randomness only from `rng`."""

    role: ClassVar[str] = "trigger"
    #: Learned tensors (a pattern, a generator's weights). Saved beside the spec, not in it.
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @abstractmethod
    def __call__(self, batch: Batch, rng: RowRng) -> Batch:
        """The batch with the trigger on every row; same shape and type."""

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
    """Writes nothing: the trigger of a model that has none."""

    def __call__(self, batch: Batch, rng: RowRng) -> Batch:
        return batch


@method("chain")
class Chain(Trigger):
    """Two triggers, one after the other."""

    first: Trigger = Identity()
    second: Trigger = Identity()

    def __call__(self, batch: Batch, rng: RowRng) -> Batch:
        return self.second(self.first(batch, rng.child("first")), rng.child("second"))
