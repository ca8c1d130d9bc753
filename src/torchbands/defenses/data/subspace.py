"""Leading directions of a set of rows without a full decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.seeding import generator

#: Up to this many columns the covariance is decomposed exactly.
EXACT = 128


def principal(centred: Tensor, count: int, *, tolerance: float = 1e-5, steps: int = 60) -> Tensor:
    """The `count` leading right singular vectors of (n, d) centred rows, as (d, count) orthonormal columns.

    Narrow rows: eigenvectors of the d x d covariance. Wide rows: block power iteration until the leading values stand
    still, on the covariance where forming it costs less than multiplying by the rows in every step. Fewer columns come
    back when the rows span fewer directions.
    """
    n, d = centred.shape
    count = min(count, n, d)
    if d <= EXACT:
        vectors: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors
        return vectors.flip(1)[:, :count]
    block = min(count + 6, n, d)
    basis = torch.linalg.qr(torch.randn(d, block, generator=generator("principal", d, block))).Q
    covariance = centred.T @ centred if d < min(n, steps * block) else None
    last = torch.zeros(count)
    for _ in range(steps):
        product = centred.T @ (centred @ basis) if covariance is None else covariance @ basis
        basis, upper = torch.linalg.qr(product)
        values = upper.diagonal().abs()[:count]
        if torch.allclose(values, last, rtol=tolerance, atol=0.0):
            break
        last = values
    small = centred @ basis
    order: Tensor = torch.linalg.eigh(small.T @ small).eigenvectors
    found: Tensor = basis @ order.flip(1)[:, :count]
    return found
