"""What a scan of a data set could have seen: it plants triggers of its own into a copy and looks again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchbands.core.errors import NotApplicable
from torchbands.core.seeding import generator, seed_of
from torchbands.core.trigger import Trigger

from .ranking import Ranking
from .rows import Rows
from .shared_values import Group

#: Shares of all rows that are planted, each with a trigger and into a class of its own, as far as there are both.
RATES = (0.02, 0.01, 0.005)
#: Classes with fewer rows are not judged, so nothing is planted into them.
FEWEST = 20


@dataclass(frozen=True)
class Planted:
    """One trigger of the self-test.

    Attributes:
        trigger: its label. rows: how many were planted, as a share of all: rate. into: the class. found: whether the
            class was accused. shown: whether most of them were shown as rows that share raw values. named: rows of it
            that were named, and how many of those were planted.
    """

    trigger: str
    rate: float
    rows: int
    into: str
    found: bool
    shown: bool
    named: int
    right: int


def self_test(
    rows: Rows,
    look: Callable[[Rows], tuple[Ranking | None, Sequence[Group]]],
    seed: int = 0,
    *,
    without: Sequence[int] = (),
) -> tuple[Planted, ...]:
    """Plant the toolkit's own triggers into a copy, look at it as at the data themselves, and say what was found.

    A plain trigger is easier to see than most that an attacker would choose, so what is missed here would be missed
    there; what is found here says that the scan works on these rows, not that nothing else is in them.

    Args:
        look: the scan, from rows to their ranking (None where it could not judge) and what shares raw values.
        without: classes that nothing is planted into.

    Raises NotApplicable where no trigger can be written on these samples, or no class has room for one.
    """
    plants = _plants(rows, seed, set(without))
    data, told = rows.data, []
    for trigger, at, label in plants:
        data = data.stamp(at, trigger, label=label, seed=seed_of("self-test", seed))
    ranking, groups = look(replace(rows, data=data.blind()))
    for trigger, at, label in plants:
        named = torch.zeros(len(rows), dtype=torch.bool) if ranking is None else ranking.named & (data.y == label)
        planted = torch.zeros(len(rows), dtype=torch.bool).index_fill_(0, at, True)
        told.append(
            Planted(
                trigger.label(),
                round(len(at) / len(rows), 4),
                len(at),
                rows.class_names[label],
                ranking is not None and label in ranking.proven,
                any(2 * int(planted[list(g.rows)].sum()) >= len(at) for g in groups),
                int(named.sum()),
                int((named & planted).sum()),
            )
        )
    return tuple(told)


def _plants(rows: Rows, seed: int, without: set[int]) -> list[tuple[Trigger, Tensor, int]]:
    """Triggers with the rows that they are written on and the class that these are put into; no row has two."""
    y, rng = rows.data.y, generator("self-test", len(rows), seed)
    count = torch.bincount(y, minlength=rows.classes)
    room = [c for c in torch.randperm(rows.classes, generator=rng).tolist() if count[c] >= FEWEST and c not in without]
    triggers = rows.modality.plain_triggers()
    free, out = torch.randperm(len(y), generator=rng), []
    for trigger, rate, label in zip(triggers, RATES, room, strict=False):
        wanted = min(math.ceil(rate * len(y)), int(count[label]))
        mine = free[y[free] != label][:wanted]
        free = free[~torch.isin(free, mine)]
        out.append((trigger, mine, label))
    if not out:
        raise NotApplicable(f"no class of {FEWEST} rows or more has room for a trigger")
    return out


def in_words(told: Sequence[Planted], rows: int) -> str:
    """One clause on what was seen and what was not."""
    seen = ", ".join(f"{p.rows} rows ({p.rate:.1%}) {_seen(p)}" for p in told)
    return f"self-test with plain triggers planted into a copy of these {rows:,} rows: {seen}"


def _seen(planted: Planted) -> str:
    return "accused" if planted.found else "shown, not accused" if planted.shown else "missed"


def to_json(told: Sequence[Planted]) -> list[dict[str, Any]]:
    """JSON-ready."""
    return [asdict(p) for p in told]
