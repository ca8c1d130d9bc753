"""The plain mean of client updates: no defense, the row that every other aggregator is compared with."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model


@method("mean", paper="McMahan et al., AISTATS 2017, arXiv:1602.05629")
class Mean(Aggregator):
    """The mean update, of parameters and of running statistics. It suspects nobody.

    Deviations from the paper: clients count alike, not by their number of rows, which a malicious client could claim
    at will.
    """

    baseline: ClassVar[bool] = True

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return MeanServer()


class MeanServer(Server):
    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        return Aggregate(sent.weights.mean(0), sent.buffers.mean(0))
