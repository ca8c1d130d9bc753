"""Finds rows of one label that share identical values in the same places, without any model.

A trigger is the same on every row it is written on, while pixels of natural pictures are hardly ever identical. This
shows where to look first. It is no accusation: watermarks, borders and templates of one source look the same.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import take
from torchbands.core.seeding import generator

from .rows import Rows

NAME, ABOUT = "shared-values", "rows with the same values in the same places, all under one label"
#: Rows that must share them, and the share of their class above which they are what the class looks like.
FEWEST, MOST = 8, 0.25
#: Places that they must share: by one alone, small groups of natural pictures are alike too.
TOGETHER = 2
#: Chance, over everything compared, of so many rows under one label if labels had nothing to do with the values.
LEVEL = 0.01
#: Places of an image that are compared, evenly spread; sides of the square that is one place; levels of a value.
PLACES, SIDE, LEVELS = 2048, 2, 15
#: Words of the longest phrase. Groups that are told.
PHRASE, TOLD = 4, 3
#: Rows that are read at once.
CHUNK = 4096


@dataclass(frozen=True)
class Group:
    """Rows of one label. places: the values, or phrases, that all of them share and no other row has, by their numbers.
    what: for texts, the longest phrase."""

    label: int
    rows: tuple[int, ...]
    places: tuple[int, ...]
    what: str = ""

    def facts(self, rows: Rows) -> dict[str, Any]:
        """JSON-ready."""
        told = {"class": rows.class_names[self.label], "rows": len(self.rows), "places": len(self.places)}
        return told | ({"phrase": self.what} if self.what else {})


def groups_of(rows: Rows) -> tuple[Group, ...]:
    """The groups with the most shared places, at most `TOLD`. Copies of a row count once. Empty where samples are
    neither pictures, numbers nor texts."""
    if isinstance(rows.data.x, list):
        return _texts(rows) if all(isinstance(t, str) for t in rows.data.x) else ()
    at, keys = _keys(rows)
    if not len(at):
        return ()
    y, weight = rows.data.y[at], torch.rand(len(at), generator=generator(NAME), dtype=torch.float64)
    share, size = _shares(rows.data.y, rows.classes)
    held: dict[tuple[int, int, float], list[tuple[int, Tensor]]] = defaultdict(list)
    compared = 0
    for place, key in enumerate(keys):
        kind, count = key.unique(return_inverse=True, return_counts=True)[1:]
        compared += len(count)
        label = torch.zeros_like(count).index_put_((kind,), y)  # of some holder: right where all have one
        one = torch.ones_like(count, dtype=torch.bool)
        one &= torch.zeros_like(count).index_put_((kind,), (label[kind] == y).long(), accumulate=True) == count
        fits = one & (count >= FEWEST) & (count <= MOST * size[label])
        if bool(fits.any()):
            sums = torch.zeros(len(count), dtype=torch.float64).index_put_((kind,), weight, accumulate=True)
            for k in fits.nonzero().flatten().tolist():
                # the sum tells holders apart: two sets of rows share one by accident with no chance to speak of
                held[int(label[k]), int(count[k]), round(float(sums[k]), 9)].append(
                    (place, (kind == k).nonzero().flatten())
                )
    found = [
        Group(label, tuple(at[sets[0][1]].tolist()), tuple(place for place, _ in sets))
        for (label, count, _), sets in held.items()
        if len(sets) >= TOGETHER and _chance(share[label], count, compared) <= LEVEL
    ]
    return _first(found)


def _first(found: list[Group]) -> tuple[Group, ...]:
    """The most places first, then the most rows; of groups that are nearly the same, the first."""
    kept: list[Group] = []
    for group in sorted(found, key=lambda g: (-len(g.places), -len(g.rows), g.rows)):
        if len(kept) == TOLD:
            break
        mine = set(group.rows)
        if all(2 * len(mine & set(k.rows)) < len(mine) for k in kept):
            kept.append(group)
    return tuple(kept)


def _shares(y: Tensor, classes: int) -> tuple[list[float], Tensor]:
    size = torch.bincount(y, minlength=classes)
    return (size.double() / max(1, len(y))).tolist(), size


def _chance(share: float, rows: int, compared: int) -> float:
    return min(1.0, compared * math.exp((rows - 1) * math.log(share))) if share > 0 else 1.0


def _keys(rows: Rows) -> tuple[Tensor, Iterator[Tensor]]:
    """Different rows, and of every place one key each: two rows with the same values there have the same key."""
    n, empty = len(rows), torch.zeros(0, dtype=torch.long)
    first = take(rows.data.x, torch.arange(min(1, n)))
    if not isinstance(first, Tensor) or first.ndim not in (2, 4):
        return empty, iter(())
    table = torch.cat([_read(take(rows.data.x, part)) for part in torch.arange(n).split(CHUNK)])
    mixed = torch.randint(1, 1 << 40, (table[0].numel(),), generator=generator(NAME))
    whole = (table.flatten(1).long() * mixed).sum(1)
    kind = whole.unique(return_inverse=True)[1]
    leader = torch.full((int(kind.max()) + 1,), n).scatter_reduce_(0, kind, torch.arange(n), "amin")
    at = leader.sort().values
    return at, _columns(table[at]) if table.ndim == 2 else _squares(table[at])


def _read(part: Any) -> Tensor:
    """Rows in few bytes: pictures in `LEVELS` steps, numbers as they are."""
    assert isinstance(part, Tensor)
    if part.ndim == 4:
        return (part.float().clamp(0, 1) * LEVELS).round().to(torch.uint8)
    return part.float().contiguous().view(torch.int32)


def _columns(table: Tensor) -> Iterator[Tensor]:
    for column in table.T:
        yield column.contiguous()


def _squares(table: Tensor) -> Iterator[Tensor]:
    """Squares of `SIDE` pixels over all channels, at places spread over the picture."""
    _, channels, height, width = table.shape
    side = min(SIDE, height, width)
    mixed = torch.randint(1, 1 << 40, (channels * side * side,), generator=generator(NAME, "square"))
    for r, c in _corners(height, width):
        yield (table[:, :, r : r + side, c : c + side].flatten(1).long() * mixed).sum(1)


def _corners(height: int, width: int) -> list[tuple[int, int]]:
    side = min(SIDE, height, width)
    every = [(r, c) for r in range(height - side + 1) for c in range(width - side + 1)]
    return every[:: max(1, math.ceil(len(every) / PLACES))]


def _texts(rows: Rows) -> tuple[Group, ...]:
    """Phrases of up to `PHRASE` words, as they are written, that several different texts of one label alone have."""
    first: dict[str, int] = {}
    for i, text in enumerate(rows.data.x):
        first.setdefault(str(text), i)
    y, seen = rows.data.y.tolist(), dict[str, tuple[int, int]]()  # phrase -> its only label or -1, holders
    for text, i in first.items():
        for phrase in _phrases(text):
            label, count = seen.get(phrase, (y[i], 0))
            seen[phrase] = (label if label == y[i] else -1, count + 1)
    share, size = _shares(rows.data.y, rows.classes)
    wanted = {
        phrase
        for phrase, (label, count) in seen.items()
        if label >= 0
        and FEWEST <= count <= MOST * float(size[label])
        and _chance(share[label], count, len(seen)) <= LEVEL
    }
    holders: dict[str, list[int]] = defaultdict(list)
    for text, i in first.items():
        for phrase in _phrases(text):
            if phrase in wanted:
                holders[phrase].append(i)
    by_rows: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for phrase, at in holders.items():
        by_rows[tuple(at)].append(phrase)
    return _first(
        [
            Group(y[at[0]], at, tuple(range(len(named))), max(named, key=lambda p: (len(p), p)))
            for at, named in by_rows.items()
            if len(named) >= TOGETHER
        ]
    )


def _phrases(text: str) -> Iterable[str]:
    words = text.lower().split()
    return Counter(" ".join(words[i : i + n]) for n in range(1, PHRASE + 1) for i in range(len(words) - n + 1))
