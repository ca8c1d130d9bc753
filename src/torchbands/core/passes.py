"""Forward passes: counting rows, charging them to methods, and sharing passes between methods."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

#: Passes that a block keeps at once: the training rows, and a few sets of clean ones.
KEPT = 4


class Outputs(NamedTuple):
    """One forward pass: (N, K) float32 logits and (N, D) float32 features, on the CPU."""

    logits: Tensor
    features: Tensor


def precision(dtypes: set[str]) -> str | None:
    """As a reader sees it: "bfloat16 and float32"; None for none."""
    return " and ".join(sorted(dtypes)) or None


@dataclass(eq=False)
class Charge:
    """What somebody used and did not spend: passes that were made for another. `dtypes`: of all that it used."""

    forward: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    dtypes: set[str] = field(default_factory=set)


@dataclass
class Passes:
    """Rows sent forward through a model and its clones, what in, and who is being measured now."""

    forward: int = 0
    dtypes: set[str] = field(default_factory=set)
    users: list[Charge] = field(default_factory=list)

    def count(self, rows: int, dtype: str) -> None:
        """Note a pass: `dtype` is what it was really computed in."""
        self.forward += rows
        self.dtypes.add(dtype)
        for user in self.users:
            user.dtypes.add(dtype)

    @property
    def precision(self) -> str | None:
        """What the passes were computed in; None where there were none."""
        return precision(self.dtypes)

    @contextmanager
    def user(self) -> Iterator[Charge]:
        """Whoever works inside the block is charged once for every shared pass that it uses and did not make."""
        charge = Charge()
        self.users.append(charge)
        try:
            yield charge
        finally:
            self.users.remove(charge)


@dataclass(eq=False)
class _Kept:
    x: object
    state: Hashable
    outputs: Outputs
    cost: Charge
    paid: list[Charge]


class Shared:
    """The passes of one block, for all who look at the same model in it. It answers nothing once it is closed."""

    def __init__(self) -> None:
        self.open = True
        self._kept: list[_Kept] = []

    def knows(self, x: object) -> bool:
        return any(kept.x is x for kept in self._kept)

    def find(self, x: object, state: Hashable, users: Sequence[Charge]) -> Outputs | None:
        """The pass of this very object, made in this state. Users that have not paid for it are charged."""
        for kept in self._kept:
            if kept.x is x and kept.state == state:
                for user in users:
                    if not any(user is paid for paid in kept.paid):
                        kept.paid.append(user)
                        user.forward += kept.cost.forward
                        user.seconds += kept.cost.seconds
                        user.cpu_seconds += kept.cost.cpu_seconds
                        user.dtypes |= kept.cost.dtypes
                return kept.outputs
        return None

    def keep(self, x: object, state: Hashable, outputs: Outputs, cost: Charge, users: Sequence[Charge]) -> None:
        """Keep a pass that `users` have just paid for with their own time."""
        self._kept = [*self._kept[1 - KEPT :], _Kept(x, state, outputs, cost, list(users))]

    def close(self) -> None:
        self.open, self._kept = False, []
