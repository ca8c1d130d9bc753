"""Norm clipping, and weak differential privacy: clipping and a little noise."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import distances, middle
from torchbands.defenses.aggregation._noise import Noise


@method("norm-clipping", paper="Sun et al., 2019, arXiv:1911.07963")
class NormClipping(Aggregator):
    """Clips every update to a norm bound, then takes the mean.

    Deviations from the paper: clients count alike, not by their number of rows; running statistics are joined by the
    median of each; a client's suspicion, which the paper does not give, is the length of its update divided by the
    bound, and all clients are kept.
    """

    bound: float = 3.0
    """Longest update that counts whole, in units of the parameters' Euclidean norm."""

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise InputError(f"{self.name}: bound={self.bound}, expected above 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return BoundedServer(self.bound, Noise(self.name, seed, 0.0))


@method("weak-dp", paper="Sun et al., 2019, arXiv:1911.07963")
class WeakDP(Aggregator):
    """Norm clipping plus Gaussian noise on the mean: too little for privacy, enough to blur a backdoor.

    Deviations from the paper: as of `norm-clipping`; the noise is drawn by the seed and the number of the round.
    """

    bound: float = 3.0
    """Longest update that counts whole, in units of the parameters' Euclidean norm."""
    sigma: float = 0.025
    """Standard deviation of the noise on each parameter's change."""

    def __post_init__(self) -> None:
        if self.bound <= 0 or self.sigma < 0:
            raise InputError(f"{self.name}: bound is above 0 and sigma at least 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return BoundedServer(self.bound, Noise(self.name, seed, self.sigma))


class BoundedServer(Server):
    def __init__(self, bound: float, noise: Noise) -> None:
        self.bound, self.noise = bound, noise

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        sizes = distances(sent.weights)
        mean = clipped_mean(sent.weights, sizes, self.bound)
        suspicion = (sizes / self.bound).clamp_max(1e30).float().cpu()
        return Aggregate(mean + self.noise.like(mean), middle(sent.buffers), suspicion)


def clipped_mean(rows: Tensor, sizes: Tensor, bound: float | Tensor) -> Tensor:
    """The mean of (n, D) rows of known lengths, each made no longer than a bound. It copies none of them."""
    share = (bound / sizes.clamp_min(1e-300)).clamp_max(1) / len(rows)
    return share.to(rows.dtype) @ rows
