"""SCAn: a contaminated class is a mixture of two groups with the covariance that clean classes show."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.method import method
from torchbands.core.model import Model

from .activation_clustering import two_means
from .subspace import Centred, principal


@method(
    "statistical-contamination",
    paper="Tang et al., USENIX Security 2021, arXiv:1908.00686",
    needs=("features", "clean:1000"),
)
class StatisticalContamination(DataFilter):
    """Tests whether a class is better explained by two identities than by one (SCAn).

    Features are whitened by the variation within clean classes. Each class is fitted as one group and, by expectation
    maximisation, as two groups of that covariance; the likelihood ratio per row is compared between the classes by its
    distance from their median in median absolute deviations, and above e^2 the class is contaminated. A row's
    score is its log-odds of being in the foreign group: the one whose mean is farther from the clean rows of that
    class, or the smaller one where there are none. All classes share a covariance, so the odds compare between them:
    they are great where two groups lie far apart, and small where one group was cut. A class's index is no factor in
    it: half of all classes have one below zero, also a contaminated class where many are, and probabilities round to 1.

    Deviations from the paper: the covariance is the shrunken (Ledoit-Wolf) pooled one of the clean rows in the leading
    `dims` directions of the training features, instead of one estimated together with that of the identities in the
    full space, which 1,000 rows cannot determine; the ratio is divided by the rows of the class, so that a large
    class is not suspicious for its size; only classes above the median can be flagged. With fewer than three classes
    there is no median to compare with, and nothing is flagged.
    """

    version = 2

    dims: int = 64
    """Principal directions of the features that are kept."""
    cutoff: float = 7.389056
    """Index above which a class counts as contaminated (e^2)."""
    steps: int = 50
    """Iterations of expectation maximisation."""

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model, clean)
        assert clean is not None
        rows, known = self._whitened(model.outputs(data.x).features, model.outputs(clean.x).features, clean.y)
        labels = [c for c in data.y.unique().tolist() if int((data.y == c).sum()) >= 4]
        foreign = torch.zeros(len(data))  # a class of fewer than four rows: even odds
        ratio = torch.zeros(len(labels))
        for at, label in enumerate(labels):
            mine = data.y == label
            ratio[at], foreign[mine] = _untangle(rows[mine], known[clean.y == label], self.steps, seed)
        index, judged = ratio, len(labels) >= 3
        if judged:
            index = (ratio - ratio.median()) / (1.4826 * (ratio - ratio.median()).abs().median()).clamp_min(1e-6)
        contaminated = torch.zeros(int(data.y.max()) + 1, dtype=torch.bool)
        contaminated[torch.tensor(labels, dtype=torch.long)] = index > self.cutoff
        guilty = contaminated[data.y] & (foreign > 0)
        evidence = {"class_index": {str(c): round(float(v), 3) for c, v in zip(labels, index)}}
        return Suspicion(per_row(foreign, len(data), self.name), guilty if judged else None, evidence)

    def _whitened(self, features: Tensor, known: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        from sklearn.covariance import LedoitWolf

        centred = Centred(features)
        basis = principal(centred, self.dims)
        rows, known = centred @ basis, (known - centred.mean) @ basis
        means = torch.zeros(int(y.max()) + 1, basis.shape[1]).index_add_(0, y, known)
        means /= torch.bincount(y).clamp_min(1)[:, None]
        covariance = torch.from_numpy(LedoitWolf(assume_centered=True).fit((known - means[y]).numpy()).covariance_)
        values, vectors = torch.linalg.eigh(covariance.double())
        whiten = (vectors * values.clamp_min(1e-6 * float(values.max()) + 1e-12).rsqrt()).to(rows)
        return rows @ whiten, known @ whiten


def _untangle(rows: Tensor, known: Tensor, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Twice the log-likelihood ratio of two groups against one, per row; (n,) log-odds of the foreign group."""
    n = len(rows)
    belongs = torch.nn.functional.one_hot(two_means(rows, 3, seed).argmin(1), 2).to(rows)
    for _ in range(steps):
        weight = belongs.sum(0).clamp_min(1e-6)
        means = belongs.T @ rows / weight[:, None]
        joint = (weight / n).log() - 0.5 * torch.cdist(rows, means).square()
        belongs = joint.softmax(1)
    one = -0.5 * (rows - rows.mean(0)).square().sum(1)
    ratio = 2 * (joint.logsumexp(1) - one).mean()
    foreign = int((means - known.mean(0)).norm(dim=1).argmax()) if len(known) else int(weight.argmin())
    return ratio, joint[:, foreign] - joint[:, 1 - foreign]
