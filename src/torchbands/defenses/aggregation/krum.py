"""Krum and Multi-Krum: whoever has close neighbours is believed."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._assumed import assumed, check
from torchbands.defenses.aggregation._geometry import relative, squared_distances


@method("krum", paper="Blanchard et al., NeurIPS 2017, arXiv:1703.02757")
class Krum(Aggregator):
    """The single update that is closest to its n - f - 2 nearest neighbours.

    Deviations from the paper: its vectors are gradients, here the changes that local training made; a client's
    suspicion, which the paper does not give, is its score (the sum of squared distances) divided by the median score;
    running statistics are those of the chosen client, and never part of a distance.
    """

    f: int = 1
    """Malicious clients that are assumed in a round; 2f + 2 is less than the number of clients."""

    def __post_init__(self) -> None:
        check(self.name, self.f)

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return KrumServer(self.name, self.f, 1)


@method("multi-krum", paper="Blanchard et al., NeurIPS 2017, arXiv:1703.02757")
class MultiKrum(Aggregator):
    """Mean of the m updates that are closest to their n - f - 2 nearest neighbours.

    Deviations from the paper: as of `krum`; running statistics are the mean of the chosen clients'.
    """

    f: int = 1
    """Malicious clients that are assumed in a round; 2f + 2 is less than the number of clients."""
    m: int | None = None
    """Updates of which the mean is taken; None: all but f."""

    def __post_init__(self) -> None:
        check(self.name, self.f)
        if self.m is not None and self.m < 1:
            raise InputError(f"{self.name}: m={self.m} updates to take the mean of, expected at least 1")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return KrumServer(self.name, self.f, self.m)


class KrumServer(Server):
    def __init__(self, name: str, f: int, m: int | None) -> None:
        self.name, self.f, self.m = name, f, m

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        n = len(sent)
        f = assumed(self.name, self.f, self.excluded, n, 2, 3)
        m = n - f if self.m is None else self.m
        if m > n:
            raise InputError(f"{self.name}: the mean of m={m} updates, and {n} came", hint=f"set m to at most {n}")
        apart = squared_distances(sent.weights)
        score, kept = scores(apart, f), torch.zeros(n, dtype=torch.bool)
        kept[ranked(score, scores(apart, f - 1))[:m].cpu()] = True
        return Aggregate(sent.weights[kept].mean(0), sent.buffers[kept].mean(0), relative(score), kept)


def scores(apart: Tensor, f: int) -> Tensor:
    """(n,) from (n, n) squared distances: of each client, the sum to its n - f - 2 nearest neighbours."""
    nearest = apart.clone().fill_diagonal_(float("inf")).sort(1).values
    return nearest[:, : min(max(1, len(apart) - f - 2), len(apart) - 1)].sum(1)


def ranked(score: Tensor, then: Tensor) -> Tensor:
    """(n,) positions from the least score. Two clients that are each other's only neighbour tie, whatever the last
    digits say: the second score decides, and never the order in which they came."""
    order = then.argsort(stable=True)
    return order[score.float()[order].argsort(stable=True)]
