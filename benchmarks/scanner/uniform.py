"""Are the p-values of fresh models uniform? All of them are ranked among the same references, which ties them to one
another. The usual test against the uniform distribution takes them as independent, and rejects good ones too often."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from scipy import stats
from torch import Tensor

DRAWS = 10_000


def uniform(p: Sequence[float], references: int) -> dict[str, float] | None:
    """Kolmogorov-Smirnov distance of some p-values from the uniform distribution, and the share of sets of as many
    models of the references' very kind that are as far away. None where there are no models."""
    if len(p) < 2:
        return None
    return told(float(stats.kstest(p, "uniform").statistic), len(p), references)


def told(distance: float, n: int, references: int) -> dict[str, float]:
    """The same from a distance that is known."""
    usual = distances(n, references)
    return {"ks": round(distance, 4), "p": round(float((usual >= distance - 1e-4).double().mean()), 4), "n": n}


@cache
def distances(n: int, references: int) -> Tensor:
    """(DRAWS,) distances of n models that are ranked among references which they cannot be told apart from."""
    rng = torch.Generator().manual_seed(0)
    theirs, mine = (torch.rand(DRAWS, k, generator=rng) for k in (references, n))
    below = torch.searchsorted(theirs.sort(1).values, mine)
    p = ((1 + references - below) / (references + 1)).sort(1).values
    rank = torch.arange(1, n + 1) / n
    return torch.maximum((rank - p).amax(1), (p - (rank - 1 / n)).amax(1))
