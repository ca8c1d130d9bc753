"""CUBE: rows of a label that lie in another dense cluster than most of it are poison."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model

from .subspace import principal


@method("cube", paper="Cui et al., NeurIPS 2022, arXiv:2206.08514", needs=("features",))
class CUBE(DataFilter):
    """Density clusters (HDBSCAN) of the penultimate features of all rows; a label keeps the largest share of its rows.

    A row's score is how much nearer it is to the centre of some other cluster than to that of its label's largest
    one, in units of the root-mean-square distance of the label's rows to the nearest centre. Flagged: rows outside of
    their label's largest cluster, where the cluster they are in has less than half of the label's rows.

    Threat model: the attacker changes a share of the training rows and their labels, and the model tells poisoned
    rows of a label from the others of it. Poison of fewer rows than `neighbours` has no cluster of its own, and a
    label that falls into several groups by itself loses the smaller ones.

    Needs: features of the model trained on the data.

    Deviations from the paper: the features are reduced by PCA alone (paper: PCA to 20 dimensions, then UMAP to 2),
    where more rows lie between the clusters, so these join the nearest one (paper: they are dropped, all in one); the
    victim's own model is read (paper: an encoder trained for this); `neighbours` is at most a tenth of the mean rows of
    a label, for small data.

    Cost: one pass for the features; the clustering grows with the square of the rows.
    """

    dims: int = 20
    """Dimensions kept."""
    neighbours: int = 100
    """Rows around one that tell how dense it lies (min_samples)."""
    smallest: int = 5
    """Least rows of a cluster."""

    def __post_init__(self) -> None:
        if min(self.dims, self.neighbours) < 1 or self.smallest < 2:
            raise InputError("cube: dims and neighbours are at least 1 and smallest at least 2")

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        features = model.outputs(data.x).features
        centred = features - features.mean(0)
        rows = centred @ principal(centred, self.dims)
        labels = data.y.unique().tolist()
        part, distance = self._clusters(rows, min(self.neighbours, len(data) // (10 * max(len(labels), 1))))
        scores, flagged = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
        sizes: dict[str, list[int]] = {}
        for label in labels:
            mine = (data.y == label).nonzero().flatten()
            size = torch.bincount(part[mine], minlength=distance.shape[1])
            kept = int(size.argmax())
            flagged[mine] = (part[mine] != kept) & (2 * size[part[mine]] < len(mine))
            away, spread = distance[mine], distance[mine].amin(1).square().mean().sqrt().clamp_min(1e-9)
            to_kept = away[:, kept].clone()
            away[:, kept] = torch.inf
            other = away.amin(1) if distance.shape[1] > 1 else torch.zeros(len(mine))
            scores[mine] = (to_kept - other) / spread
            sizes[str(label)] = [n for n in size.sort(descending=True).values.tolist() if n]
        return Suspicion(per_row(scores, len(data), self.name), flagged, {"rows_per_cluster": sizes})

    def _clusters(self, rows: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        """(N,) int64 cluster of (N, D) rows, and their (N, C) distances to the centres of all clusters."""
        from sklearn.cluster import HDBSCAN

        neighbours = max(neighbours, 1)
        part = torch.full((len(rows),), -1)
        if len(rows) > max(self.smallest, neighbours):
            made = HDBSCAN(min_cluster_size=self.smallest, min_samples=neighbours, copy=True)
            part = torch.from_numpy(made.fit_predict(rows.double().numpy())).long()
        if int(part.max()) < 0:  # nothing is denser than the rest: all rows are one cluster
            part = torch.zeros_like(part)
        count = torch.bincount(part[part >= 0])
        centres = torch.zeros(len(count), rows.shape[1]).index_add_(0, part[part >= 0], rows[part >= 0])
        distance = torch.cdist(rows, centres / count[:, None])
        return torch.where(part < 0, distance.argmin(1), part), distance
