"""BKI: a word whose deletion changes the features of many rows of one label is likely a trigger."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model

from ._tokens import spelled, tokens_of

#: Keywords named in the evidence.
NAMED = 3


@method("bki", paper="Chen and Dai, Neurocomputing 2021, arXiv:2007.12070", needs=("features",))
class BKI(DataFilter):
    """Backdoor keyword identification: flags rows with the word that sways their label's features most.

    Each token of a row is deleted in turn. Its impact is the largest change of any penultimate feature; the `words`
    tokens of largest impact are the row's keywords. A keyword's statistic for a label is its mean impact in rows of
    that label times log10 of how many of them it is a keyword in. A row's score is the largest statistic of its
    keywords for its label. Flagged: rows with the keyword and label of the largest statistic of all. That
    rule always finds a keyword: on data without poison it removes the rows of an ordinary telling word.

    Threat model: the attacker changes a share of the training rows and their labels, and the trigger's rows share a
    word. Of several trigger words that come one at a time the rule removes the rows of `removed`.

    Needs: features, inputs made of tokens. Tokens behind the model's last position are not seen.

    Deviations from the paper: what is deleted is a token of the model, not a word; the impact is read at what enters
    the linear head instead of at the state of an LSTM, and the second impact, between steps of the LSTM, is left out,
    so that any network will do; statistics are kept per label; the discount of words in very many rows is left out, as
    in later toolkits.

    Cost: one forward pass per token of the training data.
    """

    words: int = 5
    """Keywords kept per row."""
    removed: int = 1
    """Number of suspicious keywords whose rows are removed; raise it for triggers of several words."""

    def __post_init__(self) -> None:
        if min(self.words, self.removed) < 1:
            raise InputError(f"bki: words and removed are at least 1, got {self.words} and {self.removed}")

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        ids, mask = tokens_of(self, model.modality, data)
        require(self, model)
        row, place = mask.nonzero(as_tuple=True)
        special = model.modality.first_word
        row, place = row[place >= special], place[place >= special]
        impact = impacts(model, Encoded(ids, mask), model.outputs(data.x).features, row, place)
        row, token, impact = keywords(row, ids[row, place], impact, self.words)
        classes = int(data.y.max()) + 1
        kind, at = (token * classes + data.y[row]).unique(return_inverse=True)
        count = torch.bincount(at, minlength=len(kind))
        mean = torch.zeros(len(kind)).index_add_(0, at, impact) / count.clamp_min(1)
        statistic = mean * count.clamp_min(1).log10()
        scores = torch.zeros(len(data)).scatter_reduce_(0, row, statistic[at], "amax")
        flagged = torch.zeros(len(data), dtype=torch.bool)
        found = []
        for rank, k in enumerate(statistic.topk(min(max(NAMED, self.removed), len(kind))).indices.tolist()):
            held = row[at == k]
            if rank < self.removed:
                flagged[held] = True
            if rank >= NAMED:
                continue
            word = spelled(model.modality, data, int(held[0]), int(kind[k]) // classes)
            found.append({"token": word, "id": int(kind[k]) // classes, "label": int(kind[k]) % classes})
            found[-1]["rows"] = len(held)
            found[-1]["statistic"] = round(float(statistic[k]), 4)
        return Suspicion(per_row(scores, len(data), self.name), flagged, {"keywords": found})


@torch.no_grad()
def impacts(model: Model, e: Encoded, features: Tensor, row: Tensor, place: Tensor) -> Tensor:
    """(P,) largest change of any of (N, D) features of a row by deleting the token at a place of it; 0 where that
    would leave nothing.

    Deletions of rows of like length go through the model together.
    """
    assert e.mask is not None
    lengths = e.mask.sum(1)
    out = torch.zeros(len(row))
    tried = (lengths[row] > 1).nonzero().flatten()
    order = tried[lengths[row[tried]].argsort(stable=True)]
    for part in order.split(model.chunk) if len(order) else ():
        mine = row[part]
        longest = int(lengths[mine[-1]])
        keep = torch.arange(longest - 1)[None]
        keep = keep + (keep >= place[part, None])
        shorter = Encoded(e.values[mine[:, None], keep], e.mask[mine[:, None], keep]).to(model.device)
        moved = model.features_at(shorter).cpu() - features[mine]
        out[part] = moved.abs().amax(1)
    return out


def keywords(row: Tensor, token: Tensor, impact: Tensor, words: int) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of largest impact of each row, each once: (Q,) row, token and impact."""
    order = impact.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row, token, impact = row[order], token[order], impact[order]
    pair = (row * (int(token.max()) + 1 if len(token) else 1) + token).unique(return_inverse=True)[1]
    many = int(pair.max()) + 1 if len(pair) else 0
    first = torch.full((many,), len(pair)).scatter_reduce_(0, pair, torch.arange(len(pair)), "amin").sort().values
    row, token, impact = row[first], token[first], impact[first]
    start = torch.searchsorted(row, row)
    best = torch.arange(len(row)) - start < words
    return row[best], token[best], impact[best]
