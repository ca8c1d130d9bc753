"""FoolsGold: clients whose updates have been alike for many rounds are taken for one attacker's."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import cosines, products
from torchbands.defenses.aggregation._head import head_of


@method("foolsgold", paper="Fung et al., RAID 2020, arXiv:1808.04866")
class FoolsGold(Aggregator):
    """A client counts the less, the more its updates so far, summed, point the way of another client's.

    A lone attacker is like nobody, and counts whole.

    Deviations from the paper: the features that matter are the final layer's parameters, each counted alike (all
    parameters, where a network ends in another layer); the weighted mean is taken, where the paper adds up, which for
    clients that train alone would be a step n times as long; where all clients are copies of each other, the global
    model stays as it is. Running statistics are the mean by the same weights. Suspicion is the similarity after
    pardoning, and clients of weight 0 are not kept.
    """

    contract_sybils: ClassVar[int] = 3

    confidence: float = 1.0
    """Factor on the logit of a client's weight: how sharply alike and unlike are told apart."""
    features: Literal["head", "all"] = "head"
    """Parameters that are compared: the final layer's, or all."""

    def __post_init__(self) -> None:
        if self.confidence <= 0:
            raise InputError(f"{self.name}: confidence={self.confidence}, expected above 0")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        head = head_of(model) if self.features == "head" else None
        return FoolsGoldServer(self.confidence, None if head is None else head.all())


class FoolsGoldServer(Server):
    """Remembers the sum of each client's updates, of the compared parameters alone."""

    def __init__(self, confidence: float, features: Tensor | None) -> None:
        self.confidence, self.features = confidence, features
        self.sums: dict[int, Tensor] = {}

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        compared = sent.weights if self.features is None else sent.weights[:, self.features]
        for client, update in zip(sent.clients.tolist(), compared.double(), strict=True):
            self.sums[client] = self.sums[client] + update if client in self.sums else update
        alike = cosines(products(torch.stack([self.sums[c] for c in sent.clients.tolist()]))).fill_diagonal_(0)
        similarity = pardoned(alike).amax(1).clamp(0, 1)
        share = weight_of(similarity, self.confidence)
        total = share.sum()
        mix = (share / total.clamp_min(1e-300)).to(sent.weights.dtype)
        return Aggregate(mix @ sent.weights, mix @ sent.buffers, similarity.float().cpu(), (share > 0).cpu())


def pardoned(alike: Tensor) -> Tensor:
    """(n, n) cosines, of which those to a client with an even closer friend are lowered: the fault is rather its."""
    closest = alike.amax(1)
    lower = (closest[:, None] / closest.clamp_min(1e-300)).clamp_max(1)
    return alike * torch.where(closest[:, None] < closest, lower, torch.ones_like(lower))


def weight_of(similarity: Tensor, confidence: float) -> Tensor:
    """(n,) weights in [0, 1]: the least alike counts whole, the others by a logit."""
    unlike = 1 - similarity
    unlike = (unlike / unlike.max().clamp_min(1e-12)).clamp(0, 0.99)
    return (confidence * (torch.logit(unlike) + 0.5)).clamp(0, 1)
