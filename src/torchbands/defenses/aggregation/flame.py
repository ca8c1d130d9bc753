"""FLAME: models that point another way are left out, the rest clipped by the median length, and blurred by noise."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._clusters import clusters
from torchbands.defenses.aggregation._geometry import cosines, distances, products, relative
from torchbands.defenses.aggregation._noise import Noise
from torchbands.defenses.aggregation.norm_clipping import clipped_mean


@method("flame", paper="Nguyen et al., USENIX Security 2022, arXiv:2101.02281")
class FLAME(Aggregator):
    """Clusters by the cosine of the clients' models; keeps the one with more than half of them, clips, adds noise.

    Deviations from the paper: scikit-learn's HDBSCAN; where there is no such cluster, of which the paper says nothing,
    all clients are kept, clipped and blurred; running statistics are the mean of the kept clients'. A client's
    suspicion, which the paper does not give, is its mean cosine distance to the kept clients, divided by the median.
    """

    noise: float = 0.001
    """The noise's standard deviation, as a share of the median length of all updates."""

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise InputError(f"{self.name}: noise={self.noise}, expected at least 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return FLAMEServer(Noise(self.name, seed, self.noise))


class FLAMEServer(Server):
    def __init__(self, noise: Noise) -> None:
        self.noise = noise

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        n = len(sent)
        apart = 1 - cosines(of_models(sent.weights, weights))
        found = clusters(apart, least=n // 2 + 1, neighbours=1, single=True)
        kept = found == 0 if bool((found == 0).any()) else torch.ones(n, dtype=torch.bool)
        sizes = distances(sent.weights)
        bound = sizes.quantile(0.5)
        mean = clipped_mean(sent.weights[kept], sizes[kept], bound)
        blur = self.noise.like(mean, self.noise.sigma * float(bound))
        return Aggregate(mean + blur, sent.buffers[kept].mean(0), _suspicion(apart.cpu(), kept), kept)


def of_models(updates: Tensor, weights: Tensor) -> Tensor:
    """(n, n) inner products of the models weights + update, without making those models."""
    wide = weights.double()
    across = torch.cat([part.double() @ wide for part in updates.split(64)])
    return products(updates) + across[:, None] + across + wide @ wide


def _suspicion(apart: Tensor, kept: Tensor) -> Tensor:
    """(n,): the mean distance to the kept clients other than itself."""
    near = apart[:, kept].clamp_min(0)
    return relative(near.sum(1) / (int(kept.sum()) - kept.double()).clamp_min(1))
