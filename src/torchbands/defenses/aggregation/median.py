"""The coordinate-wise median of client updates."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model


@method("median", paper="Yin et al., ICML 2018, arXiv:1803.01498", version=2)
class Median(Aggregator):
    """The median of every coordinate, the mean of the two middle values for an even number of clients.

    Deviations from the paper: running statistics are joined by the same rule; it gives no suspicion of clients, which
    here is the distance of a client's update from the median, divided by the median distance.
    """

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return MedianServer()


class MedianServer(Server):
    def step(self, sent: Updates, weights: Tensor) -> Aggregate:
        middle = _middle(sent.weights)
        far = (sent.weights - middle).norm(dim=1)
        return Aggregate(middle, _middle(sent.buffers), far / far.median().clamp_min(1e-12))


def _middle(rows: Tensor) -> Tensor:
    """(n, D) -> (D,) medians."""
    ordered, n = rows.sort(0).values, len(rows)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
