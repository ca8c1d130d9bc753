"""HDBSCAN over a matrix of distances."""

from __future__ import annotations

import torch
from torch import Tensor


def clusters(apart: Tensor, *, least: int, neighbours: int, single: bool = False) -> Tensor:
    """(n,) int64 cluster of each client, -1 for none.

    Args:
        apart: (n, n) distances. least: clients of a cluster.
        neighbours: `min_samples` as the hdbscan package, which the papers used, counts it: without the client itself.
            scikit-learn counts it too.
        single: whether all may be one cluster.
    """
    from sklearn.cluster import HDBSCAN

    n = len(apart)
    if n < 3:  # two are either alike or not, and no density tells which
        return torch.zeros(n, dtype=torch.int64) if single else torch.full((n,), -1)
    found = HDBSCAN(
        min_cluster_size=max(2, min(least, n)),
        min_samples=min(neighbours + 1, n),
        metric="precomputed",
        allow_single_cluster=single,
        copy=True,
    ).fit_predict(apart.cpu().double().clamp_min(0).fill_diagonal_(0).numpy())
    return torch.from_numpy(found).long()
