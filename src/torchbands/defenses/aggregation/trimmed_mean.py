"""The coordinate-wise trimmed mean of client updates."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._assumed import assumed, check
from torchbands.defenses.aggregation._geometry import by_columns


@method("trimmed-mean", paper="Yin et al., ICML 2018, arXiv:1803.01498")
class TrimmedMean(Aggregator):
    """Coordinate-wise mean without the f largest and f smallest values.

    Deviations from the paper: it trims a share of the clients, here their number is set, as every rule that assumes
    some malicious has it; running statistics are joined by the same rule; a client's suspicion, which the paper does
    not give, is the share of coordinates in which its value was trimmed, and all clients are kept.
    """

    f: int = 1
    """Values that are trimmed at either end; 2f is less than the number of clients."""

    def __post_init__(self) -> None:
        check(self.name, self.f)

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return TrimmingServer(self.name, self.f)


class TrimmingServer(Server):
    def __init__(self, name: str, f: int) -> None:
        self.name, self.f = name, f

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        n = len(sent)
        f = assumed(self.name, self.f, self.excluded, n, 2, 1)
        trimmed = sent.weights.new_zeros(n)

        def rule(values: Tensor) -> Tensor:
            inner = values.sort(1).values[:, f : n - f]
            # Of equal values none is trimmed rather than another: who is would depend on the order of the clients.
            trimmed.add_(((values < inner[:, :1]) | (values > inner[:, -1:])).sum(0))
            return inner.mean(1)

        joined = by_columns(sent.weights, rule)
        suspicion = (trimmed / len(joined)).cpu()
        return Aggregate(joined, by_columns(sent.buffers, rule), suspicion, torch.ones(n, dtype=torch.bool))
