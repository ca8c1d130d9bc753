"""Z-score: words or phrases that occur with one label far more often than by chance."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model

from ._tokens import once, spelled, tokens_of

#: Features named in the evidence.
NAMED = 3


@method("z-score", paper="He et al., EMNLP 2023, arXiv:2305.11596")
class ZScore(DataFilter):
    """Largest z-score of the row's features (words) for their association with the row's label.

    A feature held by n rows, a share q of them with label y, has z = (q - p) / sqrt(p (1 - p) / n), p being the share
    of y among all rows. All z of a data set are put in units of their own mean and deviation; a row's score is the
    largest of its features for its label. Flagged: rows with a score above `cutoff`.

    "tokens" are the paper's Z-TOKEN. "shapes" stand in for its syntax: runs of 2 to `longest` tokens in which only the
    `common` most frequent tokens keep their name; the start and the end of a row are tokens too. "sequence" flags by
    tokens first, then by shapes among the rows left, as Z-SEQ does; a score is the larger of the two.

    Threat model: the attacker changes a share of the training rows and their labels. Rare poison stands out less: z
    grows with the root of its rows. Clean-label poison is not told from words that are typical of the class.

    Needs: inputs made of tokens. The model is not run: only its tokenizer reads, so words that it does not know are
    one word, and what lies behind its last position is not seen.

    Deviations from the paper: no parser, so shapes instead of the ancestors of words in a parse tree, and the default
    is Z-TOKEN, the part that is the paper's own; a row counts a feature once, however often it holds it.

    Cost: one pass of counting.
    """

    features: Literal["tokens", "shapes", "sequence"] = "tokens"
    """Features to count: tokens, token shapes, or whole sequences."""
    cutoff: float = 18.0
    """Standard deviations above the mean z-score at which a feature is an outlier."""
    common: int = 100
    """Number of frequent tokens that shapes keep verbatim."""
    longest: int = 3
    """Maximum length of a shape in tokens."""

    def __post_init__(self) -> None:
        if self.cutoff <= 0 or not 1 <= self.common <= 1000 or not 2 <= self.longest <= 5:
            raise InputError("z-score: cutoff is above 0, common between 1 and 1000, longest between 2 and 5")

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        ids, mask = tokens_of(self, model.modality, data)
        scores, flagged = torch.full((len(data),), -torch.inf), torch.zeros(len(data), dtype=torch.bool)
        evidence: dict[str, Any] = {"cutoff": self.cutoff}
        for kind in ("tokens", "shapes") if self.features == "sequence" else (self.features,):
            left = (~flagged).nonzero().flatten()
            row, feature = once(*self._held(kind, ids[left], mask[left]))
            z = deviations(row, feature, data.y[left])
            own = torch.full((len(left),), min(float(z.min()), 0.0) if len(z) else 0.0)
            own.scatter_reduce_(0, row, z, "amax")
            scores[left] = torch.maximum(scores[left], own)
            flagged[left] = own > self.cutoff
            if kind == "tokens":
                evidence["tokens"] = self._named(data, model, left[row], feature, z)
        return Suspicion(per_row(scores, len(data), self.name), flagged, evidence)

    def _held(self, kind: str, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if kind == "shapes":
            return shapes(ids, mask, self.common, self.longest)
        return mask.nonzero()[:, 0], ids[mask]

    def _named(self, data: Data, model: Model, row: Tensor, feature: Tensor, z: Tensor) -> list[dict[str, Any]]:
        """The tokens that stand out most."""
        named: list[dict[str, Any]] = []
        rest = z.clone()
        while len(named) < NAMED and len(rest) and float(rest.max()) > -torch.inf:
            at = int(rest.argmax())
            token, label = int(feature[at]), int(data.y[row[at]])
            word = spelled(model.modality, data, int(row[at]), token)
            named.append({"token": word, "id": token, "label": label, "deviations": round(float(z[at]), 2)})
            rest[(feature == token) & (data.y[row] == label)] = -torch.inf
        return named


def deviations(row: Tensor, feature: Tensor, y: Tensor) -> Tensor:
    """(P,) z of features for the labels of rows that hold them, in deviations from the mean of all z.

    Args:
        row: (P,) int64 and feature: (P,) int64, each pair once.
        y: (N,) int64 labels.
    """
    if len(row) == 0:
        return torch.zeros(0)
    known, at = feature.unique(return_inverse=True)
    classes = int(y.max()) + 1
    count = torch.bincount(at * classes + y[row], minlength=classes * len(known)).view(-1, classes).double()
    share = torch.bincount(y, minlength=classes).double() / len(y)
    n = count.sum(1, keepdim=True)
    z = (count - n * share) / (n * share * (1 - share)).sqrt().clamp_min(1e-12)
    met = z[count > 0]
    return ((z - met.mean()) / met.std(correction=0).clamp_min(1e-9)).float()[at, y[row]]


def shapes(ids: Tensor, mask: Tensor, common: int, longest: int) -> tuple[Tensor, Tensor]:
    """(P,) row and (P,) number of every run of 2 to `longest` tokens of (N, L) ids, tokens that are not common being
    one."""
    token = once(mask.nonzero()[:, 0], ids[mask])[1]
    often = torch.bincount(token, minlength=int(ids.max()) + 1 if ids.numel() else 1)
    frequent = often.topk(min(common, len(often))).indices
    name = torch.full((len(often),), 2)  # 0: behind the end, 1: start or end, 2: not common
    name[frequent] = torch.arange(3, 3 + len(frequent))
    line = torch.zeros(len(ids), ids.shape[1] + 2, dtype=torch.int64)
    line[:, 0] = 1
    line[:, 1:-1] = torch.where(mask, name[ids], 0)
    line[torch.arange(len(ids)), mask.sum(1) + 1] = 1
    rows, numbers = [], []
    number = line
    for width in range(2, longest + 1):
        number = number[:, :-1] * (common + 3) + line[:, width - 1 :]
        at, place = (line[:, width - 1 :] > 0).nonzero(as_tuple=True)
        rows.append(at)
        numbers.append(number[at, place])
    return torch.cat(rows), torch.cat(numbers).unique(return_inverse=True)[1]
