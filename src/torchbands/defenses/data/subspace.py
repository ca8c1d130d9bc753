"""Top principal directions of a matrix without a full decomposition or a second copy of its rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torchbands.core.seeding import generator

#: Up to this many columns the covariance is decomposed exactly.
EXACT = 128
#: Numbers that are centred at once: 128 MB.
TOGETHER = 1 << 25


class Centred:
    """Some of the rows of (N, D) features, less their mean, made a part at a time whenever they are needed.

    Args:
        rows: (n,) int64 which; None: all.
        mean: (D,) what is taken off; None: their mean.
    """

    def __init__(self, features: Tensor, rows: Tensor | None = None, mean: Tensor | None = None) -> None:
        self._features, self._rows = features, rows
        self.shape = (len(features) if rows is None else len(rows), features.shape[1])
        self._each = max(1, TOGETHER // max(1, self.shape[1]))
        self.mean = torch.zeros(self.shape[1]) if mean is None else mean
        if mean is None and self.shape[0] <= self._each:
            self.mean = next(self.parts()).mean(0)
        elif mean is None:
            total = torch.stack([part.double().sum(0) for part in self.parts()]).sum(0)
            self.mean = (total / self.shape[0]).to(features)

    def __len__(self) -> int:
        return self.shape[0]

    def parts(self) -> Iterator[Tensor]:
        """(m, D) consecutive rows."""
        for at in torch.arange(self.shape[0]).split(self._each) if self.shape[0] else [torch.arange(0)]:
            start, stop = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
            rows = slice(start, stop) if self._rows is None else self._rows[start:stop]
            yield self._features[rows] - self.mean

    def rounding(self) -> float:
        """A sum of squares over all rows that rounding of the mean alone may leave in a column."""
        error = 4 * torch.finfo(self.mean.dtype).eps * float(self.mean.abs().max()) if self.mean.numel() else 0.0
        return self.shape[0] * error**2

    def __matmul__(self, basis: Tensor) -> Tensor:
        """(n, C) places along the (D, C) columns of a basis."""
        return torch.cat([part @ basis for part in self.parts()])

    def gram(self, basis: Tensor | None = None) -> Tensor:
        """(D, D) inner products of the columns; with a (D, C) basis, that product times the basis."""
        total = None
        for part in self.parts():
            made = part.T @ (part if basis is None else part @ basis)
            total = made if total is None else total.add_(made)
        assert total is not None
        return total


def principal(centred: Tensor | Centred, count: int, *, tolerance: float = 1e-5, steps: int = 60) -> Tensor:
    """The `count` leading right singular vectors of (n, d) centred rows, as (d, count) orthonormal columns.

    Narrow rows: eigenvectors of the d x d covariance. Wide rows: block power iteration until the leading values stand
    still, on the covariance where forming it costs less than multiplying by the rows in every step. Fewer columns come
    back when the rows span fewer directions. Rows that differ by rounding alone have no direction: their columns are
    zeros, so that every row lies at 0.
    """
    rows = centred if isinstance(centred, Centred) else Centred(centred, mean=centred.new_zeros(centred.shape[1]))
    n, d = rows.shape
    count = min(count, n, d)
    if d <= EXACT:
        gram = rows.gram()
        if float(gram.diagonal().max()) <= rows.rounding():
            return gram.new_zeros(d, count)
        leading: Tensor = _eigenvectors(gram)[:, :count]
        return leading
    block = min(count + 6, n, d)
    basis = torch.linalg.qr(torch.randn(d, block, generator=generator("principal", d, block))).Q
    covariance = rows.gram() if d < min(n, steps * block) else None
    last = torch.zeros(count)
    for _ in range(steps):
        product = rows.gram(basis) if covariance is None else covariance @ basis
        if not last.any() and float(product.abs().max()) <= rows.rounding():
            nothing: Tensor = basis.new_zeros(d, count)
            return nothing
        basis, upper = torch.linalg.qr(product)
        values = upper.diagonal().abs()[:count]
        if torch.allclose(values, last, rtol=tolerance, atol=0.0):
            break
        last = values
    small = rows @ basis
    found: Tensor = basis @ _eigenvectors(small.T @ small)[:, :count]
    return found


def _eigenvectors(gram: Tensor) -> Tensor:
    """Of a symmetric matrix, the leading first. Copied rows leave many equal eigenvalues, on which the solver gives up
    or answers NaN in single precision: so in double, in units of the largest entry."""
    wide = gram.double()
    vectors: Tensor = torch.linalg.eigh(wide / wide.abs().max().clamp_min(torch.finfo(wide.dtype).tiny)).eigenvectors
    return vectors.flip(1).to(gram.dtype)
