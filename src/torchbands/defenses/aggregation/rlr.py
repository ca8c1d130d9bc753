"""RLR: where too few clients agree on a direction, the server goes the other way."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import by_columns, middle


@method("rlr", paper="Ozdayi et al., AAAI 2021, arXiv:2007.03767")
class RLR(Aggregator):
    """The mean update, turned round in every coordinate in which the clients' signs sum to less than a threshold.

    It does not bound how long one update is: against a boosted one it is combined with clipping, as in the paper.

    Deviations from the paper: clients count alike, not by their number of rows; running statistics are joined by the
    median of each, and never turned round; a client's suspicion, which the paper does not give, is the share of
    coordinates in which its sign is against the sum of all signs, and all clients are kept.
    """

    contract_unshown: ClassVar[str] = "it bounds no length, and the contract's client boosts its update"

    threshold: int = 4
    """Sum of the signs from which a coordinate goes the mean's way: above the malicious, below the honest clients."""

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise InputError(f"{self.name}: threshold={self.threshold}, expected at least 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return RLRServer(self.threshold)


class RLRServer(Server):
    def __init__(self, threshold: int) -> None:
        self.threshold = threshold

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        n = len(sent)
        if self.threshold > n:
            raise InputError(
                f"rlr: threshold={self.threshold} among {n} clients: no coordinate could ever agree",
                hint=f"set threshold to at most {n}",
            )
        against = sent.weights.new_zeros(n)

        def rule(values: Tensor) -> Tensor:
            signs = values.sign()
            agreed = signs.sum(1)
            against.add_((signs * agreed[:, None] < 0).sum(0))
            return torch.where(agreed.abs() >= self.threshold, values.mean(1), -values.mean(1))

        joined = by_columns(sent.weights, rule)
        suspicion = (against / len(joined)).cpu()
        return Aggregate(joined, middle(sent.buffers), suspicion, torch.ones(n, dtype=torch.bool))
