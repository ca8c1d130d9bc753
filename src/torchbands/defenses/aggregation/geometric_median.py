"""RFA: the geometric median of client updates by the smoothed Weiszfeld algorithm."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import distances, middle, relative


@method("geometric-median", paper="Pillutla et al., IEEE TSP 2022, arXiv:1912.13445")
class GeometricMedian(Aggregator):
    """The point with the least summed distance to all updates (Weiszfeld iterations, smoothed).

    Deviations from the paper: clients count alike, not by their number of rows, which a malicious client could claim at
    will; the search starts at the mean of the updates; running statistics are joined by the median of each; a client's
    suspicion, which the paper does not give, is its distance from the result divided by the median distance.
    """

    iterations: int = 3
    """Means that are taken in a round."""
    smoothing: float = 1e-6
    """Least distance that an update counts as having."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.smoothing <= 0:
            raise InputError(f"{self.name}: iterations is at least 1 and smoothing above 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return WeiszfeldServer(self)


class WeiszfeldServer(Server):
    def __init__(self, settings: GeometricMedian) -> None:
        self.settings = settings

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        point = sent.weights.mean(0)
        for _ in range(self.settings.iterations):
            near = 1 / distances(sent.weights, point).clamp_min(self.settings.smoothing)
            point = (near / near.sum()).to(point.dtype) @ sent.weights
        return Aggregate(point, middle(sent.buffers), relative(distances(sent.weights, point)))
