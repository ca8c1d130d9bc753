"""A fingerprint of data: which rows they are, in which order, with which labels."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from .data import Data, Pixels, take


def digest(data: Data, size: int = 1024) -> str:
    """The sha256 of all samples and labels, in their order. Rows are read in parts of `size`."""
    made = hashlib.sha256(str(len(data)).encode())
    x = data.x.bytes if isinstance(data.x, Pixels) else data.x
    for rows in torch.arange(len(data)).split(size):
        part = take(x, rows)
        if isinstance(part, Tensor):
            _add(made, part)
            continue
        for sample in part:
            raw = sample if isinstance(sample, bytes) else str(sample).encode("utf-8", "surrogatepass")
            made.update(f"{type(sample).__name__}{len(raw)}:".encode())
            made.update(raw)
    _add(made, data.y)
    return made.hexdigest()


def _add(made: hashlib._Hash, t: Tensor) -> None:
    made.update(f"{tuple(t.shape[1:])}{t.dtype}".encode())
    made.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
