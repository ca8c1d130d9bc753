"""Rows kept encoded on the device if they fit there, otherwise encoded on each access."""

from __future__ import annotations

import torch
from torch import Tensor

from .data import Batch, Column, take, whole
from .modality import Encoded
from .model import Model

#: Columns up to this many bytes, as the model takes them, are kept on the device.
RESIDENT_BYTES = 4 << 30


class Streamed:
    """Rows that are encoded on access: the interface of `Encoded.at` for columns too large to keep in memory."""

    def __init__(self, model: Model, x: Batch | Column) -> None:
        self.model, self.x = model, x
        self._lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Tensor) -> Encoded:
        """Some of the rows, on the model's device."""
        part = take(self.x, rows.cpu())
        self.model.modality.check(part)
        return self.model.encode(part)

    def lengths(self) -> Tensor | None:
        """(N,) int64 real positions of each row; None where every position is real."""
        if self._lengths is None:
            some = max(1, RESIDENT_BYTES // 64 // encoded_bytes(self.model, self.x))
            parts = [self.at(rows).lengths() for rows in torch.arange(len(self)).split(some)]
            if any(p is None for p in parts):
                return None
            self._lengths = torch.cat([p for p in parts if p is not None])
        return self._lengths


def encoded_bytes(model: Model, x: Batch | Column) -> int:
    """Bytes of one row as the model takes it."""
    e = model.modality.encode(take(x, torch.arange(1)))
    return max(1, sum(t.numel() * t.element_size() for t in e if isinstance(t, Tensor)))


def resident(model: Model, x: Batch | Column) -> Encoded | Streamed:
    """A column in encoded form, entirely on the model's device if it fits."""
    if len(x) and encoded_bytes(model, x) * len(x) > RESIDENT_BYTES:
        return Streamed(model, x)
    return model.encode(whole(x))
