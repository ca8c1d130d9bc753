"""From the scores of several filters to one ranking, a p-like rank per row, and flags within a false-alarm budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torchbands.core.defense import Suspicion

#: Its classes' indices decide which classes are split; its scores rank their rows.
DECIDES = "cross-split"
#: Decides on the classes that the other leaves: rows that hold a word which is an outlier by the published rule.
WORDS = "z-score"


@dataclass(frozen=True)
class Ranking:
    """(N,) combined score (higher is more suspicious), p-like rank and flags; the split classes, worst first.

    Attributes:
        p: share of the same class's ordinary rows that score at least as high; 0 where none does.
        index: how far each class falls into two parts.
        p_excess: binomial tail: the chance of so many flagged rows if each benign row had the budget's chance.
    """

    combined: Tensor
    p: Tensor
    flagged: Tensor
    split: tuple[int, ...]
    index: Mapping[int, float]
    p_excess: float


def rank(y: Tensor, found: Mapping[str, Suspicion], false_alarms: float) -> Ranking:
    """Join the filters' scores within each class.

    Texts have a second judge: a class in which words stand out by `z-score`'s rule counts as split where cross-split
    sees nothing. In a split class the row's place between the two parts counts, and the natural part is what p
    compares with.
    In other classes it is the mean rank over the filters, and p compares with the whole class: by construction no more
    than `false_alarms` of those rows are flagged.
    """
    decides = found[DECIDES]
    assert decides.flagged is not None
    classes = decides.evidence["classes"]
    index = {int(c): float(v["index"]) for c, v in classes.items()}
    foreign = decides.flagged
    words = found.get(WORDS)
    held = torch.zeros_like(foreign) if words is None or words.flagged is None else words.flagged
    cut = [c for c in index if bool(foreign[y == c].any())]
    told = [c for c in y.unique().tolist() if c not in cut and bool(held[y == c].any())]
    split = [*sorted(cut, key=lambda c: -index[c]), *told]
    voices = [s.scores for s in found.values()]
    combined, p = torch.zeros(len(y)), torch.ones(len(y))
    cutoff = float(decides.evidence["cutoff"])
    for label in y.unique().tolist():
        rows = (y == label).nonzero().flatten()
        weight = index.get(label, 0.0) / cutoff
        if label in cut:
            scores = decides.scores[rows] / cutoff
            ordinary = scores[~foreign[rows]]
        elif label in told and words is not None:
            scores = words.scores[rows] / float(words.evidence["cutoff"])
            ordinary = scores[~held[rows]]
        else:
            scores = weight * torch.stack([_ranks(v[rows]) for v in voices]).mean(0)
            ordinary = scores
        combined[rows] = scores
        above = len(ordinary) - torch.searchsorted(ordinary.sort().values, scores)
        p[rows] = above.float() / len(ordinary)
    flagged = p <= false_alarms
    from scipy.stats import binom

    excess = float(binom.sf(int(flagged.sum()) - 1, len(y), false_alarms)) if split else 1.0
    return Ranking(combined, p, flagged, tuple(split), index, excess)


def _ranks(values: Tensor) -> Tensor:
    """(n,) mid-ranks in (0, 1): ties get the same."""
    ordered = values.sort().values
    low = torch.searchsorted(ordered, values)
    high = torch.searchsorted(ordered, values, right=True)
    return (low + high).float() / (2 * len(values))
