"""Estimates the remaining time of a run from the time that cells of the same kind took, now or earlier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchbands.core.words import in_words

#: What a cell is, from what tells most of its time to what tells least: the first is its kind, victim or defense.
Kind = tuple[str, ...]


class Left:
    """Seconds by kind of cell. Finished cells only serve to estimate others of their kind."""

    def __init__(self) -> None:
        self.seconds: dict[Kind, list[float]] = defaultdict(list)

    def saw(self, kind: Kind, seconds: float | None) -> None:
        """Record how long a cell of this kind took."""
        if seconds is not None and seconds >= 0:
            for depth in range(1, len(kind) + 1):
                self.seconds[kind[:depth]].append(seconds)

    def of(self, kind: Kind) -> float | None:
        """Seconds of one cell: the mean of those most like it; None where no victim, or no defense, was ever seen."""
        for depth in range(len(kind), 0, -1):
            if seen := self.seconds.get(kind[:depth]):
                return sum(seen) / len(seen)
        return None

    def told(self, kinds: Iterable[Kind]) -> str:
        """'about 12 min left', 'at least 12 min left' where some kind is not known yet, or nothing."""
        asked = [self.of(kind) for kind in kinds]
        known = [seconds for seconds in asked if seconds is not None]
        if not known:
            return ""
        return f"{'about' if len(known) == len(asked) else 'at least'} {in_words(sum(known))} left"


def seconds_of(record: Mapping[str, Any] | None) -> float | None:
    """What a finished record says its cell took; None where it does not, or where nothing was computed."""
    cost = (record or {}).get("cost")
    found = cost.get("seconds") if isinstance(cost, Mapping) else None
    done = (record or {}).get("status") == "done"
    return float(found) if done and isinstance(found, (int, float)) and not isinstance(found, bool) else None


def with_time(what: str, left: Left, kinds: Sequence[Kind]) -> str:
    """The current work and the remaining time."""
    told = left.told(kinds)
    return f"{what} · {told}" if told else what
