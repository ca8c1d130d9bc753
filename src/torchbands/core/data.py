"""Data: rows. Poisoning is indexing and a lazy overlay, never a copy and never a Dataset subclass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import InputError
from .seeding import RowRng, seed_of

if TYPE_CHECKING:
    from .trigger import Trigger

#: One batch of raw samples: a tensor, or a list of strings or bytes.
Batch = Any

#: meta keys that tell which rows are poisoned: `.blind()` drops them.
TRUTH = frozenset({"cover", "source_row"})


@runtime_checkable
class Column(Protocol):
    """Anything with a length that returns a batch for a LongTensor of row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Batch: ...


def take(x: Batch | Column, rows: Tensor) -> Batch:
    """The batch of `rows` (int64) from a tensor, a list or a column."""
    if isinstance(x, Tensor):
        return x[rows.to(x.device)]
    if isinstance(x, (list, tuple)):
        return [x[i] for i in rows.tolist()]
    return x[rows]


def concat(parts: Sequence[Batch]) -> Batch:
    """Batches joined along rows."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return [row for part in parts for row in part]


def whole(x: Batch | Column, size: int = 4096) -> Batch:
    """The column as one batch in memory."""
    if isinstance(x, (Tensor, list)):
        return x
    return concat([take(x, rows) for rows in torch.arange(len(x)).split(size)]) if len(x) else take(x, torch.arange(0))


def _put(batch: Batch, hit: Tensor, rows: Batch) -> Batch:
    """A copy of a batch with other rows at (P,) int64 places."""
    if isinstance(batch, Tensor):
        return batch.index_copy(0, hit.to(batch.device), rows.to(batch))
    out = list(batch)
    for at, row in zip(hit.tolist(), rows, strict=True):
        out[at] = row
    return out


class Pixels:
    """uint8 images kept as bytes and read as float32 in [0, 1]: a quarter of the memory.

    Args:
        bytes_: (N, C, H, W) uint8.
    """

    def __init__(self, bytes_: Tensor) -> None:
        if bytes_.dtype != torch.uint8:
            raise InputError(f"Pixels holds uint8, got {bytes_.dtype}")
        self.bytes = bytes_

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.bytes[rows.to(self.bytes.device)].float().div_(255.0)


class Overlay:
    """A column with a trigger written on some rows when they are read.

    Args:
        base: the column underneath (may itself be an Overlay).
        rows: (P,) int64 rows that carry the trigger.
        trigger: pure function of a raw batch.
        seed: identity of this stamping; a row's random draws depend on it and on the row alone.
    """

    def __init__(self, base: Batch | Column, rows: Tensor, trigger: Trigger, seed: int) -> None:
        self.base, self.trigger, self.seed = base, trigger, seed
        self.mask = torch.zeros(len(base), dtype=torch.bool)
        self.mask[rows] = True

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, rows: Tensor) -> Batch:
        rows = rows.cpu()
        batch = take(self.base, rows)
        hit = self.mask[rows].nonzero().flatten()
        if len(hit) == 0:
            return batch
        if len(hit) == len(rows):
            return self.trigger(batch, RowRng(self.seed, rows))
        return _put(batch, hit, self.trigger(take(batch, hit), RowRng(self.seed, rows[hit])))


class Replaced:
    """A column in which some rows are replaced by stored ones.

    Args:
        base: the column underneath. rows: (P,) int64, increasing. written: the P raw rows in their place.
    """

    def __init__(self, base: Batch | Column, rows: Tensor, written: Batch) -> None:
        self.base, self.written = base, written
        self.place = torch.full((len(base),), -1)
        self.place[rows] = torch.arange(len(rows))

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, rows: Tensor) -> Batch:
        rows = rows.cpu()
        batch, place = take(self.base, rows), self.place[rows]
        hit = (place >= 0).nonzero().flatten()
        if len(hit) == 0:
            return batch
        return _put(batch, hit, take(self.written, place[hit]))


class Some:
    """A lazy selection of rows of a column.

    Args:
        base: the column underneath. rows: (P,) int64 rows of it.
    """

    def __init__(self, base: Batch | Column, rows: Tensor) -> None:
        self.base, self.rows = base, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> Batch:
        return take(self.base, self.rows[rows.cpu()])


@dataclass(frozen=True)
class Data:
    """Rows with labels, and what is known about them.

    Attributes:
        x: N raw samples (tensor, list of str or bytes, or a Column).
        y: (N,) int64 labels.
        poisoned: (N,) bool ground truth, or None where it is not known; `.blind()` drops it.
        meta: named (N,) tensors, such as "client" or "episode".
    """

    x: Any
    y: Tensor
    poisoned: Tensor | None = None
    meta: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.y.dtype != torch.int64 or self.y.ndim != 1:
            raise InputError(f"labels are int64 of shape (N,), got {self.y.dtype} of shape {tuple(self.y.shape)}")
        for name, column in {"y": self.y, "poisoned": self.poisoned, **self.meta}.items():
            if column is not None and len(column) != len(self.x):
                raise InputError(f"{len(self.x)} samples but {len(column)} values of {name!r}")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> Data:
        """The rows (int64 indices, a bool mask or a slice), read into memory."""
        if isinstance(rows, slice):
            rows = torch.arange(len(self))[rows]
        if rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        at = rows.cpu()
        return self._at(at, take(self.x, at))

    def some(self, rows: Tensor) -> Data:
        """The rows (int64 indices or a bool mask), with their samples read when they are asked for."""
        at = (rows.nonzero().flatten() if rows.dtype == torch.bool else rows).cpu()
        return self._at(at, Some(self.x, at))

    def _at(self, at: Tensor, x: Any) -> Data:
        truth = None if self.poisoned is None else self.poisoned[at]
        return Data(x, self.y[at], truth, {k: v[at] for k, v in self.meta.items()})

    def stamp(
        self, rows: Tensor, trigger: Trigger, *, label: int | Tensor | None, seed: int, poisoned: bool = True
    ) -> Data:
        """Write a trigger on rows, lazily, and relabel them.

        Args:
            rows: (P,) int64.
            trigger: what to write.
            label: the new label (one, or one per row); None keeps labels, as clean-label attacks do.
            seed: identity of the random draws.
            poisoned: False for cover samples, which carry the trigger with their true label.
        """
        y = self.y.clone()
        if label is not None:
            y[rows] = label if isinstance(label, Tensor) else torch.tensor(label, dtype=torch.int64)
        truth = torch.zeros(len(self), dtype=torch.bool) if self.poisoned is None else self.poisoned.clone()
        meta = dict(self.meta)
        if poisoned:
            truth[rows] = True
        else:
            cover = meta.get("cover", torch.zeros(len(self), dtype=torch.bool)).clone()
            cover[rows] = True
            meta["cover"] = cover
        return Data(Overlay(self.x, rows, trigger, seed), y, truth, meta)

    def with_labels(self, rows: Tensor, label: int | Tensor) -> Data:
        """The same samples with other labels on some rows."""
        y = self.y.clone()
        y[rows] = label if isinstance(label, Tensor) else torch.tensor(label, dtype=torch.int64)
        return replace(self, y=y)

    def blind(self) -> Data:
        """What a defender sees: samples and labels. A column that knows which rows are poisoned is materialised."""
        x = whole(self.x) if isinstance(self.x, (Overlay, Replaced)) else self.x
        return Data(x, self.y, None, {k: v for k, v in self.meta.items() if k not in TRUTH})

    def batches(self, size: int, rng: torch.Generator | None = None, *, drop_last: bool = False) -> Iterator[Data]:
        """Batches in order, or shuffled by a generator."""
        order = torch.arange(len(self)) if rng is None else torch.randperm(len(self), generator=rng)
        for rows in order.split(size):
            if drop_last and len(rows) < size:
                return
            yield self[rows]

    def sample(self, n: int, *identity: object, balanced: bool = False) -> Data:
        """At most n rows drawn without replacement by identity; `balanced` takes the same number of every class."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed_of("sample", *identity)))
        if balanced:
            y = self.y[order]
            rank = torch.zeros_like(y)
            for c in y.unique():
                mine = y == c
                rank[mine] = torch.arange(int(mine.sum()))
            order = order[torch.argsort(rank, stable=True)]
        return self[order[:n].sort().values]
