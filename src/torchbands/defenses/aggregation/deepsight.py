"""DeepSight: clients are grouped by what they seem to have trained on; groups that trained on few classes go."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.defenses.aggregation._clusters import clusters
from torchbands.defenses.aggregation._geometry import cosines, distances, products
from torchbands.defenses.aggregation._global import GlobalModel
from torchbands.defenses.aggregation._head import Head, head_of
from torchbands.defenses.aggregation.norm_clipping import clipped_mean

#: HDBSCAN's settings: `min_samples`, and the hdbscan package's own `min_cluster_size`.
NEIGHBOURS, LEAST = 3, 5


@method("deepsight", paper="Rieger et al., NDSS 2022, arXiv:2201.00763")
class DeepSight(Aggregator):
    """Clusters by final-layer update energy, by answers to noise and by bias; clusters with many suspicious go.

    Deviations from the paper: scikit-learn's HDBSCAN; where one of the three clusterings finds no cluster, all clients
    are alike to it, and who is in no cluster is one of its own; noise is what the kind of sample gives as random rows;
    a final layer without bias is compared by its weight; clients are asked with the global model's running statistics,
    so that those are in no distance. Running statistics are the mean of the kept clients'. A client's suspicion is the
    share of suspicious clients in its cluster, and its mean distance to the kept clients.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"samples": 64}

    samples: int = 20_000
    """Random rows of a draw, that every client's model is asked."""
    draws: int = 3
    """Draws of random rows."""
    tolerated: float = 1 / 3
    """Share of suspicious clients from which a cluster is left out."""

    def __post_init__(self) -> None:
        if self.samples < 1 or self.draws < 1 or not 0 < self.tolerated <= 1:
            raise InputError(f"{self.name}: samples and draws are at least 1, tolerated is in (0, 1]")

    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        head = head_of(model)
        if head is None:
            raise NotApplicable("deepsight reads the final linear layer, and the network ends in another")
        return DeepSightServer(self, model, head, seed)


class DeepSightServer(Server):
    def __init__(self, settings: DeepSight, model: Model, head: Head, seed: int) -> None:
        self.settings, self.seed, self.rounds = settings, seed, 0
        self.model = GlobalModel(model)
        self.weight, self.bias = head.weight, head.weight.flatten() if head.bias is None else head.bias
        self.all = head.bias is not None

    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        energy = energies(sent.weights, self.weight, self.bias if self.all else None)
        parts = [clusters_apart(distances_of(answers)) for answers in self._answers(sent, weights)]
        views = torch.stack(
            [
                torch.stack(parts).mean(0),
                clusters_apart(distances_of(energy)),
                clusters_apart((1 - cosines(products(sent.weights[:, self.bias]))).cpu()),
            ]
        )
        apart = views.mean(0)
        share = suspicious_share(clusters(apart, least=LEAST, neighbours=NEIGHBOURS, single=True), exceedings(energy))
        kept = share < self.settings.tolerated
        sizes, count = distances(sent.weights), max(1, int(kept.sum()))
        mean = clipped_mean(sent.weights[kept], sizes[kept], sizes.quantile(0.5))
        running = sent.buffers[kept].sum(0) / count
        self.model.moved(running)
        return Aggregate(mean, running, (share + apart[:, kept].sum(1) / count).float(), kept)

    def _answers(self, sent: Updates, weights: Tensor) -> list[Tensor]:
        """Of each draw, (n, classes): how a client's probabilities on noise compare to the global model's (DDif)."""
        worker, out = self.model.model, []
        for draw in range(self.settings.draws):
            rng = generator("deepsight", self.seed, self.rounds, draw)
            noise = worker.modality.random(self.settings.samples, rng)
            before = self.model.at(weights).probabilities(noise).double().clamp_min(1e-7)
            asked = [self.model.at(weights + change).probabilities(noise).double() for change in sent.weights]
            out.append(torch.stack([(p.nan_to_num() / before).mean(0) for p in asked]).cpu())
        self.rounds += 1
        return out


def energies(updates: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(n, classes) shares of each class in a client's squared update energy of the final layer (NEUP)."""
    energy = updates[:, weight.flatten()].double().abs().view(len(updates), *weight.shape).sum(2)
    if bias is not None:
        energy = energy + updates[:, bias].double().abs()
    squared = energy.square()
    return (squared / squared.sum(1, keepdim=True).clamp_min(1e-300)).cpu()


def exceedings(energy: Tensor) -> Tensor:
    """(n,) bool: clients in whose energy too few classes stand out, as if their rows were of few classes."""
    factor = max(0.01, 1 / energy.shape[1])
    over = (energy > factor * energy.amax(1, keepdim=True)).sum(1).double()
    return over <= over.quantile(0.5) / 2


def distances_of(rows: Tensor) -> Tensor:
    """(n, n) Euclidean distances of a few numbers a client."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def clusters_apart(apart: Tensor) -> Tensor:
    """(n, n): 0 within a cluster, 1 otherwise."""
    found = clusters(apart, least=LEAST, neighbours=NEIGHBOURS)
    if bool((found < 0).all()):
        return torch.zeros_like(apart)
    same = (found[:, None] == found) & (found >= 0)
    return 1.0 - (same | torch.eye(len(found), dtype=torch.bool)).double()


def suspicious_share(found: Tensor, suspicious: Tensor) -> Tensor:
    """(n,) float64: of each client, the share of suspicious ones in its cluster; alone, whether it is one."""
    share = suspicious.double()
    for cluster in found[found >= 0].unique():
        share[found == cluster] = suspicious[found == cluster].double().mean()
    return share
