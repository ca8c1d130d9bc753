"""The coordinate-wise median of client updates."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.defense import Aggregator, RoundContext
from torchbands.core.method import method


@method("median", paper="Yin et al., ICML 2018, arXiv:1803.01498")
class Median(Aggregator):
    """The median of every coordinate, the mean of the two middle values for an even number of clients.

    Deviations from the paper: it gives no suspicion of clients; here it is the distance of a client's update from the
    median, divided by the median distance.
    """

    def aggregate(self, updates: Tensor, context: RoundContext) -> tuple[Tensor, Tensor]:
        ordered = updates.sort(0).values
        n = len(updates)
        middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        far = (updates - middle).norm(dim=1)
        return middle, (far / far.median().clamp_min(1e-12)).cpu()
