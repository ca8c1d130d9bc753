"""Distances, angles and coordinates of many long updates, without a second copy of them all.

A thousand clients of 100,000 weights are 400 MB. What is computed from them in float64, for a client may send numbers
whose squares float32 cannot hold, is computed a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Numbers of a block: 32 MB in float64.
BLOCK = 1 << 22


def distances(rows: Tensor, point: Tensor | float = 0.0) -> Tensor:
    """(n,) float64: Euclidean distances of the rows from a point."""
    step = max(1, BLOCK // max(1, rows.shape[1]))
    return torch.cat([torch.linalg.vector_norm(part.double() - point, dim=1) for part in rows.split(step)])


def products(rows: Tensor) -> Tensor:
    """(n, n) float64: the inner product of every two rows."""
    total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(max(1, BLOCK // len(rows)), 1):
        wide = part.double()
        total += wide @ wide.T
    return total


def squared_distances(rows: Tensor) -> Tensor:
    """(n, n) float64: the squared Euclidean distance of every two rows."""
    inner = products(rows)
    square = inner.diagonal()
    return (square[:, None] + square - 2 * inner).clamp_min(0).fill_diagonal_(0)


def cosines(inner: Tensor) -> Tensor:
    """(n, n) cosines from inner products; a row of zeros has cosine 0 to all others."""
    size = inner.diagonal().clamp_min(0).sqrt()
    return (inner / (size[:, None] * size).clamp_min(1e-300)).clamp(-1, 1)


def by_columns(rows: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """A (m, n) -> (m,) rule of one coordinate's n values, for every coordinate of (n, D) rows: (D,)."""
    return torch.cat([rule(part.T.contiguous()) for part in rows.split(max(1, BLOCK // len(rows)), 1)])


def middle(rows: Tensor) -> Tensor:
    """(n, D) -> (D,): the median of every coordinate, the mean of the two middle values for even n."""
    n = len(rows)

    def rule(values: Tensor) -> Tensor:
        ordered = values.sort(1).values
        return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2

    return by_columns(rows, rule)


def relative(sizes: Tensor) -> Tensor:
    """(n,) float32 on the CPU: sizes divided by their median, as a suspicion that has a meaning in any network."""
    low = sizes[sizes > 0].min() if bool((sizes > 0).any()) else sizes.new_ones(())
    return (sizes / sizes.median().clamp_min(low)).clamp_max(1e30).float().cpu()
