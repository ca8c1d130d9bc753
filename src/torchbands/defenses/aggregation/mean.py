"""The plain mean of client updates: no defense, the row that every other aggregator is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.defense import Aggregator, RoundContext
from torchbands.core.method import method


@method("mean", paper="McMahan et al., AISTATS 2017, arXiv:1602.05629")
class Mean(Aggregator):
    """The mean update.

    Deviations from the paper: clients count alike, not by their number of rows, which a malicious client could claim
    at will. The suspicion of a client is 0: the mean suspects nobody.
    """

    def aggregate(self, updates: Tensor, context: RoundContext) -> tuple[Tensor, Tensor]:
        return updates.mean(0), torch.zeros(len(updates))
