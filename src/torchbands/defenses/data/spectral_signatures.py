"""Spectral signatures: poison leaves a large component along the leading direction of its class's features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model

from .subspace import Centred, principal


@method("spectral-signatures", paper="Tran et al., NeurIPS 2018, arXiv:1811.00636", needs=("features",))
class SpectralSignatures(DataFilter):
    """Projection of a class's centred penultimate features onto their top singular direction.

    The paper's squared projection is compared between classes as it is: a class's own spread is no unit for it, for the
    poison that is looked for makes the spread. The oriented projection is counted from the class's median, and all
    classes have one unit: the median over the classes of the median absolute deviation within one.

    Deviations from the paper: the leading direction comes from power iteration, not from a full decomposition;
    `epsilon` is a share of each class, as in the paper's experiments (there 5 % and 10 %), and never more than half
    of a class is removed. "oriented" is not the paper's: squaring folds the clean tail over the poison where it lies
    on one side only, so it keeps the sign, chosen so that the long tail is positive. It fails where poison is half of
    a class or more.
    """

    version = 2

    rule: Literal["paper", "oriented"] = "paper"
    """Score by the squared projection (paper), or by the one-sided one (oriented)."""
    epsilon: float = 0.1
    """Assumed upper bound on the poisoned fraction of a class; 1.5 times as many rows are removed."""

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon <= 1.0:
            raise InputError(f"epsilon is an assumed poison rate in (0, 1], got {self.epsilon}")

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        features = model.outputs(data.x).features
        scores, flagged = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
        spreads = []
        for label in data.y.unique().tolist():
            rows = (data.y == label).nonzero().flatten()
            if len(rows) < 2:
                continue
            scores[rows] = self._of_class(Centred(features, rows))
            spreads.append(scores[rows].abs().median())
            remove = int(min(1.5 * self.epsilon, 0.5) * len(rows))
            flagged[rows[scores[rows].topk(remove).indices]] = True
        if self.rule == "oriented" and spreads:
            scores = scores / torch.stack(spreads).median().clamp_min(1e-6)
        return Suspicion(per_row(scores, len(data), self.name), flagged)

    def _of_class(self, centred: Centred) -> Tensor:
        along = (centred @ principal(centred, 1)).squeeze(1)
        if self.rule == "paper":
            return along.square()
        along = along * (1.0 if float(along.pow(3).sum()) >= 0 else -1.0)
        return along - along.median()
