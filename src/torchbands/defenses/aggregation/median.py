"""The coordinate-wise median of client updates."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import distances, middle, relative


@method("median", paper="Yin et al., ICML 2018, arXiv:1803.01498", version=2)
class Median(Aggregator):
    """Coordinate-wise median; with an even number of clients, the mean of the two middle values.

    Deviations from the paper: running statistics are joined by the same rule; it gives no suspicion of clients, which
    here is the distance of a client's update from the median, divided by the median distance.
    """

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return MedianServer()


class MedianServer(Server):
    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        joined = middle(sent.weights)
        return Aggregate(joined, middle(sent.buffers), relative(distances(sent.weights, joined)))
