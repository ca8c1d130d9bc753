"""A model's confidence in the label of every clean row, which reveals whether it was trained on those rows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.method import method
from torchbands.core.model import Model

#: The share of rows that reference models find the hardest, and the fewest rows that are looked at.
HARDEST, FEWEST = 0.2, 20
#: A model that is surer than the middle reference on this share of them knows them from its training.
KNOWN = 0.8


@method(
    "row-certainty",
    paper="after Carlini et al., S&P 2022 (LiRA), arXiv:2112.03570",
    needs=("logits", "clean:1000"),
)
class RowCertainty(ModelDetector):
    """Log odds of each clean row's label, log p - log(1 - p), as in LiRA's membership inference.

    statistics: the log odds, row by row, to be compared with those of reference models that were not trained on the
    rows (`trained_on`). The score is their mean: it says nothing about backdoors, and nothing is flagged.

    Deviations from the paper: no row is judged alone. Whether a model was trained on the rows is read off those that
    the references find the hardest, by ranks and not by a fitted normal distribution, and without models that were
    trained on them.
    """

    contract_unshown: ClassVar[str] = "it tells on which rows a model was trained, and is not for finding backdoors"

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        logits = model.logits(clean.x).double()
        label = clean.y[:, None]
        others = logits.scatter(1, label, -torch.inf).logsumexp(1)
        odds = (logits.gather(1, label).squeeze(1) - others).float()
        return Finding(
            score=float(odds.mean()), statistics=odds, evidence={"mean_log_odds": round(float(odds.mean()), 4)}
        )


def trained_on(pool: Tensor) -> bool:
    """(n + 1, N) log odds of N rows, those of a suspect last -> whether it knows the rows as only a model does that was
    trained on them: it reads more of them rightly than any other, and of those that the others find the hardest it is
    surer of the label than their middle one on nearly all. A model of their kind is so on half; one that was trained
    longer or on more rows is surer where it is right and less sure where it is wrong."""
    theirs, mine = pool[:-1], pool[-1]
    theirs = theirs[theirs.isfinite().all(1)]
    if len(theirs) < 2 or not bool(mine.isfinite().all()):
        return False
    count = min(len(mine), max(FEWEST, round(HARDEST * len(mine))))
    middle = theirs.median(0).values
    better = float((mine > 0).float().mean()) > float((theirs > 0).float().mean(1).max())
    hard = middle.topk(count, largest=False).indices
    return better and float((mine > middle)[hard].float().mean()) >= KNOWN
