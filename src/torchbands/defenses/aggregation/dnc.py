"""DnC: who lies farthest along the direction in which the updates differ most is left out."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.defenses.aggregation._assumed import assumed, check
from torchbands.defenses.aggregation._geometry import products, relative


@method("dnc", paper="Shejwalkar and Houmansadr, NDSS 2021")
class DnC(Aggregator):
    """Of some coordinates, drawn anew a few times, the top singular direction; the mean of who never stood out on it.

    Deviations from the paper: where nobody is left, those are taken that stood out least often; running statistics are
    the mean of the kept clients'; a client's suspicion is its squared projection, the mean over the draws, divided by
    the median.
    """

    f: int = 1
    """Malicious clients that are assumed in a round; 2f is less than the number of clients."""
    removed: float = 1.0
    """Clients that are left out in one draw, as a multiple of f."""
    draws: int = 1
    """Draws of coordinates in a round."""
    coordinates: int = 10_000
    """Coordinates of a draw; all, where there are fewer."""

    def __post_init__(self) -> None:
        check(self.name, self.f)
        if self.removed <= 0 or self.draws < 1 or self.coordinates < 1:
            raise InputError(f"{self.name}: removed is above 0, draws and coordinates at least 1")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        return DnCServer(self, seed)


class DnCServer(Server):
    def __init__(self, settings: DnC, seed: int) -> None:
        self.settings, self.seed, self.rounds = settings, seed, 0

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        n, settings = len(sent), self.settings
        f = assumed(settings.name, settings.f, self.excluded, n, 2, 1)
        out = min(int(settings.removed * f), n - 1)
        rng = generator(settings.name, self.seed, self.rounds)
        self.rounds += 1
        times, total = torch.zeros(n), torch.zeros(n, dtype=torch.float64)
        for _ in range(settings.draws):
            which = torch.randperm(sent.weights.shape[1], generator=rng)[: settings.coordinates]
            far = projections(sent.weights[:, which.to(sent.weights.device)]).cpu()
            times[far.argsort(descending=True, stable=True)[:out]] += 1
            total += far
        kept = times == times.min()
        return Aggregate(sent.weights[kept].mean(0), sent.buffers[kept].mean(0), relative(total), kept)


def projections(rows: Tensor) -> Tensor:
    """(n,) float64: the squared projection of each centred row on their top right singular vector.

    It is an eigenvector of their n x n inner products, whose entries are the projections: no (n, D) matrix is factored.
    """
    wide = rows.double()
    values, vectors = torch.linalg.eigh(products(wide - wide.mean(0)))
    squared: Tensor = values[-1].clamp_min(0) * vectors[:, -1].square()
    return squared
