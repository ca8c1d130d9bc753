"""CUBE: rows of a label outside that label's largest dense cluster are poison."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator

from .subspace import TOGETHER, Centred, principal


@method("cube", paper="Cui et al., NeurIPS 2022, arXiv:2206.08514", needs=("features",), version=2)
class CUBE(DataFilter):
    """Clusters the penultimate features of all rows with HDBSCAN; each label keeps its largest cluster.

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

    Cost: one pass for the features; the clustering grows with the square of the rows, so that of more than `most` rows
    as many are drawn and clustered, and the others join the cluster whose centre is nearest.
    """

    dims: int = 20
    """Dimensions kept by the reduction."""
    neighbours: int = 100
    """Neighbours that define a point's density (min_samples of HDBSCAN)."""
    smallest: int = 5
    """Minimum cluster size."""
    most: int = 20_000
    """Maximum number of rows to cluster."""

    def __post_init__(self) -> None:
        if min(self.dims, self.neighbours) < 1 or self.smallest < 2:
            raise InputError("cube: dims and neighbours are at least 1 and smallest at least 2")

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        centred = Centred(model.outputs(data.x).features)
        rows = centred @ principal(centred, self.dims)
        labels = data.y.unique().tolist()
        clustered = min(len(data), self.most)
        neighbours = min(self.neighbours, clustered // (10 * max(len(labels), 1)))
        part, centres = self._clusters(rows, neighbours, seed)
        scores, flagged = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
        sizes: dict[str, list[int]] = {}
        for label in labels:
            mine = (data.y == label).nonzero().flatten()
            size = torch.bincount(part[mine], minlength=len(centres))
            kept = int(size.argmax())
            flagged[mine] = (part[mine] != kept) & (2 * size[part[mine]] < len(mine))
            to_kept = torch.cdist(rows[mine], centres[kept : kept + 1]).squeeze(1)
            others = torch.cat([centres[:kept], centres[kept + 1 :]])
            other = self._nearest(rows[mine], others)[1] if len(others) else torch.zeros(len(mine))
            nearest = torch.minimum(to_kept, other) if len(others) else to_kept
            scores[mine] = (to_kept - other) / nearest.square().mean().sqrt().clamp_min(1e-9)
            sizes[str(label)] = [n for n in size.sort(descending=True).values.tolist() if n]
        evidence = {"rows_per_cluster": sizes, "rows_clustered": clustered}
        return Suspicion(per_row(scores, len(data), self.name), flagged, evidence)

    def _clusters(self, rows: Tensor, neighbours: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(N,) int64 cluster of (N, D) rows, and (C, D) the centres of all clusters."""
        from sklearn.cluster import HDBSCAN

        at = torch.arange(len(rows))
        if len(rows) > self.most:
            at = torch.randperm(len(rows), generator=generator("cube", seed))[: self.most].sort().values
        some = rows[at]
        neighbours = max(neighbours, 1)
        part = torch.full((len(some),), -1)
        if len(some) > max(self.smallest, neighbours):
            made = HDBSCAN(min_cluster_size=self.smallest, min_samples=neighbours, copy=True)
            part = torch.from_numpy(made.fit_predict(some.double().numpy())).long()
        if int(part.max()) < 0:  # nothing is denser than the rest: all rows are one cluster
            part = torch.zeros_like(part)
        count = torch.bincount(part[part >= 0])
        centres = torch.zeros(len(count), rows.shape[1]).index_add_(0, part[part >= 0], some[part >= 0])
        centres = centres / count[:, None]
        every = self._nearest(rows, centres)[0]
        every[at[part >= 0]] = part[part >= 0]
        return every, centres

    def _nearest(self, rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) int64 which centre is the nearest, and (N,) how far it is."""
        found = [torch.cdist(part, centres).min(1) for part in rows.split(max(1, TOGETHER // len(centres)))]
        return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])
