"""The plain mean of client updates: no defense, the row that every other aggregator is compared with."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model


@method("mean", paper="McMahan et al., AISTATS 2017, arXiv:1602.05629")
class Mean(Aggregator):
    """Mean of the updates, of parameters and running statistics. Suspects nobody.

    Deviations from the paper: clients count alike unless `weighting` says otherwise: the number of its rows is what a
    malicious client could claim at will.
    """

    baseline: ClassVar[bool] = True

    weighting: Literal["equal", "rows"] = "equal"
    """Clients count alike, or by the number of training rows that they claim, as in the paper."""

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return MeanServer(self.weighting == "rows")


class MeanServer(Server):
    def __init__(self, by_rows: bool = False) -> None:
        self.by_rows = by_rows

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        if not self.by_rows:
            return Aggregate(sent.weights.mean(0), sent.buffers.mean(0))
        share = sent.rows.clamp(min=0).float()
        share = share / share.sum().clamp(min=1)
        return Aggregate(share @ sent.weights, share @ sent.buffers)
