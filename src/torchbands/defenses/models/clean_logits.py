"""The clean-logit matrix: mean logits on clean samples of each class, a black-box statistic."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.method import method
from torchbands.core.model import Model


@method(
    "clean-logits",
    paper="after MNTD's black-box features (Xu et al., S&P 2021, arXiv:1910.03137)",
    needs=("logits", "clean:1000"),
)
class CleanLogits(ModelDetector):
    """Mean logit of every class on clean samples of every class: a backdoor's target often stands out.

    `per_pair[i, j]` is the mean, over clean samples of class i, of logit j less the sample's mean logit, in nats: the
    same for a network and for a black box that gives its probabilities. `statistics` is that matrix, flattened. Rows
    of classes without a clean sample are NaN. What the numbers mean only reference models tell, and they cannot tell
    poison from other unusual training data: evidence about the recipe. On its own the score is the largest |robust z|
    among the off-diagonal entries, which natural likeness of classes raises too; nothing is flagged. With fewer than
    3 classes the score is the largest off-diagonal entry.

    Needs: logits (a black box will do), clean labelled samples.

    Deviations from the paper: MNTD learns its queries and a classifier over poisoned shadow models; here the queries
    are clean samples, and no poisoned model is used to fit anything. Probabilities count as at least `floor`.
    """

    contract_unshown: ClassVar[str] = "its matrix means something only beside those of reference models"

    rows: int = 1000
    """Clean samples used, the same number for every class."""
    floor: float = 1e-12
    """Probabilities below this count as this. Black boxes round them away, so networks must not profit from them
    either."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        rows = clean if len(clean) <= self.rows else clean.sample(self.rows, self.name, seed, balanced=True)
        logs = model.logits(rows.x).log_softmax(1).clamp_min(math.log(self.floor))
        matrix = mean_by_class(logs - logs.mean(1, keepdim=True), rows.y, model.classes)
        away = deviations(matrix)
        found = away.abs().nan_to_num(-1.0)
        source, target = divmod(int(found.argmax()), model.classes)
        evidence: dict[str, Any] = {"rows": len(rows), "without_samples": _missing(matrix)}
        if model.classes < 3:
            evidence["reason"] = "2 classes have 2 off-diagonal entries, too few for a robust z"
            score = float(matrix.masked_fill(torch.eye(model.classes).bool(), -torch.inf).nan_to_num(-torch.inf).max())
        else:
            score = float(found.max())
            evidence["deviation"] = round(float(away[source, target]), 4)
        return Finding(
            score=score,
            target=target,
            source=source,
            per_pair=matrix,
            statistics=matrix.flatten(),
            evidence=evidence,
        )


def mean_by_class(values: Tensor, y: Tensor, classes: int) -> Tensor:
    """(K, D) mean of the (N, D) values of every class; NaN where a class has no row."""
    sums = torch.zeros(classes, values.shape[1], dtype=torch.float64).index_add_(0, y, values.double())
    counts = torch.bincount(y, minlength=classes).double()
    return (sums / counts[:, None]).float()


def deviations(matrix: Tensor) -> Tensor:
    """(K, K) robust z of every off-diagonal entry among all of them: distance from the median over 1.4826 MAD.

    The MAD counts as at least 1 % of the median's size. NaN on the diagonal and where nothing was measured.
    """
    off = matrix.double().masked_fill(torch.eye(len(matrix), dtype=torch.bool), torch.nan)
    middle = off.nanmedian()
    spread = 1.4826 * (off - middle).abs().nanmedian()
    return ((off - middle) / spread.clamp_min(max(0.01 * abs(float(middle)), 1e-9))).float()


def _missing(matrix: Tensor) -> list[int]:
    missing: list[int] = matrix.isnan().any(1).nonzero().flatten().tolist()
    return missing
