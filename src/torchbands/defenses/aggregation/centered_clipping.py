"""Centered clipping: what a client may change is bounded around where the server was going."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.defenses.aggregation._geometry import distances


@method("centered-clipping", paper="Karimireddy et al., ICML 2021, arXiv:2012.10333")
class CenteredClipping(Aggregator):
    """Clips each update's difference from the last step, then moves the step by the mean of these.

    Deviations from the paper: clients keep no momentum of their own, which a server cannot make them do, so the radius
    is the paper's for none; running statistics are joined by their mean; a client's suspicion, which the paper does not
    give, is the length of its difference divided by the radius, and all clients are kept.
    """

    radius: float = 10.0
    """Longest difference that counts whole, in units of the parameters' Euclidean norm."""
    iterations: int = 1
    """Times that the step is moved in a round."""

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.iterations < 1:
            raise InputError(f"{self.name}: radius is above 0 and iterations at least 1")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return ClippingServer(self)


class ClippingServer(Server):
    """Remembers the step of the last round."""

    def __init__(self, settings: CenteredClipping) -> None:
        self.settings = settings
        self.center: Tensor | None = None

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        center = torch.zeros_like(weights) if self.center is None else self.center
        suspicion = (distances(sent.weights, center) / self.settings.radius).clamp_max(1e30).float().cpu()
        for _ in range(self.settings.iterations):
            apart = sent.weights - center
            shrink = (self.settings.radius / apart.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
            center = center + (shrink * apart).mean(0)
        self.center = center
        return Aggregate(center, sent.buffers.mean(0), suspicion)
