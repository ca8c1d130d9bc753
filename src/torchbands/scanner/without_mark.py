"""Rows of a table without their mark: which label do they get then?

A value that occurs in one class alone is ordinary in tables (a category, a default, a second kind of thing), and to a
network it is a mark like any trigger. What tells them apart is the rest of the row: relabelled rows have the other
columns of the class they were taken from, and rows that were always of their class have those of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.defenses.data._crossing import halves

from .rows import Rows
from .words import at_least, taught

#: Share of the rows that hold one and the same value in a column of the mark, and by how much that exceeds the share
#: of any other rows which hold it.
CONSTANT, MORE = 0.8, 0.1
#: How far from one half the chance that a named row has the larger value must be, in a column of the mark.
APART = 0.25
#: Share of the columns that must be left to read a row by.
LEFT = 0.5
#: Rows whose columns are compared, drawn at random, so that large tables take no longer.
COMPARED = 4096


@dataclass(frozen=True)
class Unmarked:
    """Named rows of one class without the values that set them apart.

    Attributes:
        columns: where these values are.
        tried: rows that were read without them. changed: those that get another label then.
        p: the chance, at most, of so many if the rest of the rows were no more like rows of other classes than like
            rows of their own; 1 where no few columns set the rows apart.
    """

    label: int
    columns: tuple[int, ...]
    tried: int
    changed: int
    p: float

    def facts(self, class_names: Sequence[str], titles: Sequence[str]) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "class": class_names[self.label],
            "columns": [titles[i] for i in self.columns],
            "tried_without": self.tried,
            "changed_without": self.changed,
            "p": self.p,
        }


def titles_of(rows: Rows) -> list[str]:
    """The names of a table's columns, or their numbers; empty where rows have none."""
    return [title or f"column {i}" for i, title in enumerate(rows.modality.column_titles())]


def unmarked(data: Data, model: Model, named: Tensor, labels: Sequence[int], seed: int = 0) -> Mapping[int, Unmarked]:
    """The check of every class of `labels`, whose suspected rows are `named`.

    The marked columns of all rows are filled from rows that are not named, drawn at random. Two fresh networks learn
    one half each of the rows that are not named: what they say of the named ones is neither their mark nor memory. Of
    the rest they read the half that they did not learn, which tells how well they read.
    """
    x = whole(data.x)
    assert isinstance(x, Tensor)
    return {label: _check(x, data.y, model, named & (data.y == label), label, labels, seed) for label in labels}


def _check(x: Tensor, y: Tensor, model: Model, mine: Tensor, label: int, labels: Sequence[int], seed: int) -> Unmarked:
    own, others = (y == label) & ~mine, y != label
    columns = mark_columns(x, mine, own, others, generator("mark-columns", label, seed))
    if not columns or len(columns) > (1 - LEFT) * x.shape[1] or not own.any():
        return Unmarked(label, columns, 0, 0, 1.0)
    donors, rng = (own | others).nonzero().flatten(), generator("without-mark", label, len(y), seed)
    drawn = donors[torch.randint(len(donors), (len(x),), generator=rng)]
    filled = x.clone()
    filled[:, list(columns)] = x[drawn][:, list(columns)]
    half, sure = torch.full((len(y),), -1), torch.zeros(len(y), model.classes)
    half[donors] = halves(y[donors], rng)
    for fold in (0, 1):
        reader = taught(Data(filled, y), model, half, fold, seed)
        rows = (half != fold).nonzero().flatten()
        sure[rows] += reader.logits(filled[rows]).softmax(1).cpu()
    lost = sure.argmax(1) != label
    between = sum(float(lost[part].double().mean()) for part in (own, others)) / 2
    tried, changed = int(mine.sum()), int(lost[mine].sum())
    return Unmarked(label, columns, tried, changed, min(1.0, len(labels) * at_least(changed, tried, between)))


def mark_columns(x: Tensor, mine: Tensor, own: Tensor, others: Tensor, rng: torch.Generator) -> tuple[int, ...]:
    """Columns whose values set the rows `mine` apart from the others of their class and from all other classes alike:
    one value that nearly all of them hold, or values that are nearly all larger, or smaller, than those of either."""
    parts = []
    for part in (mine, own, others):
        at = part.nonzero().flatten()
        parts.append(x[at[torch.randperm(len(at), generator=rng)[:COMPARED]]].double())
    few, *rest = parts
    found = []
    for column in range(x.shape[1]):
        values = few[:, column].contiguous()
        mode = values.mode().values
        held = float((values == mode).double().mean())
        most = max(float((part[:, column] == mode).double().mean()) for part in rest)
        above = [_above(values, part[:, column]) - 0.5 for part in rest]
        apart = min(map(abs, above)) >= APART and above[0] * above[1] > 0
        if apart or (held >= CONSTANT and held - most >= MORE):
            found.append(column)
    return tuple(found)


def _above(a: Tensor, b: Tensor) -> float:
    """The chance that a value of `a` is larger than one of `b`, ties counted half."""
    ordered = b.contiguous().sort().values
    low, high = torch.searchsorted(ordered, a), torch.searchsorted(ordered, a, right=True)
    return float((low + high).double().mean()) / (2 * len(b))
