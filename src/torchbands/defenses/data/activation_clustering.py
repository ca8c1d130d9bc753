"""Activation clustering: a poisoned class falls into two clusters of unequal size."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seed_of

from .subspace import Centred, principal


@method("activation-clustering", paper="Chen et al., SafeAI@AAAI 2019, arXiv:1811.03728", needs=("features",))
class ActivationClustering(DataFilter):
    """Runs 2-means on each class's penultimate features; a small enough smaller cluster is poison.

    A row's score is how much nearer it is to the smaller cluster's centre than to the larger one's, in units of the
    root-mean-square distance of the class's rows to their own centre, so that well separated classes rank first.

    Deviations from the paper: the features are reduced by PCA (default) or, as in the paper, by independent component
    analysis; only the relative-size rule decides. It is blind where poison is half of a class or more.
    """

    dims: int = 10
    """Dimensions kept by the reduction."""
    reduction: Literal["pca", "ica"] = "pca"
    """Dimensionality reduction: PCA or independent component analysis."""
    share: float = 0.35
    """The smaller cluster is flagged when it holds less than this fraction of its class."""
    restarts: int = 3
    """Random initialisations of 2-means; the one with the lowest inertia is kept."""

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        features = model.outputs(data.x).features
        scores, flagged = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
        shares: dict[str, float] = {}
        for label in data.y.unique().tolist():
            rows = (data.y == label).nonzero().flatten()
            if len(rows) < 4:
                continue
            reduced = self._reduced(Centred(features, rows), seed)
            distance = two_means(reduced, self.restarts, seed)
            small = distance.argmin(1) == 1
            spread = distance.amin(1).square().mean().sqrt().clamp_min(1e-9)
            scores[rows] = (distance[:, 0] - distance[:, 1]) / spread
            shares[str(label)] = round(float(small.float().mean()), 4)
            if shares[str(label)] < self.share:
                flagged[rows[small]] = True
        evidence = {"smaller_cluster_share": shares}
        return Suspicion(per_row(scores, len(data), self.name), flagged, evidence)

    def _reduced(self, centred: Centred, seed: int) -> Tensor:
        reduced = centred @ principal(centred, self.dims)
        if self.reduction == "pca":
            return reduced
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        reduced = reduced[:, reduced.std(0) > 1e-6]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            ica = FastICA(whiten="unit-variance", random_state=seed_of("ica", seed) % 2**31, max_iter=400)
            return torch.from_numpy(ica.fit_transform(reduced.double().numpy())).float()


def two_means(points: Tensor, restarts: int, seed: int, steps: int = 100) -> Tensor:
    """(n, 2) distances of (n, d) points to the centres of two clusters; column 1 is the smaller cluster.

    All restarts run side by side; each starts from a random point and one far from it.
    """
    n = len(points)
    rng = generator("two-means", n, seed)
    first = points[torch.randint(n, (restarts,), generator=rng)]
    far = torch.multinomial(torch.cdist(first, points).square() + 1e-12, 1, generator=rng).squeeze(1)
    centres = torch.stack([first, points[far]], 1)
    nearest = torch.zeros(restarts, n, dtype=torch.long)
    for step in range(steps):
        distance = torch.cdist(points.expand(restarts, -1, -1), centres)
        last, nearest = nearest, distance.argmin(2)
        if step and torch.equal(last, nearest):
            break
        member = torch.nn.functional.one_hot(nearest, 2).to(points).transpose(1, 2)
        count = member.sum(2, keepdim=True)
        centres = torch.where(count > 0, member @ points / count.clamp_min(1), centres)
    best = int(distance.amin(2).square().sum(1).argmin())
    chosen = distance[best]
    return chosen.flip(1) if int(nearest[best].sum()) * 2 > n else chosen
