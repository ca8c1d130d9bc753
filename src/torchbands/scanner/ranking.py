"""Combines the scores of several filters into one ranking, a p-like rank per row, and a test per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchbands.core.defense import Suspicion

from .words import Word

#: Share of a finding's rows that may be ordinary.
ORDINARY = 0.05
#: Its classes' indices decide which classes are named; its scores rank their rows.
DECIDES = "cross-split"
#: Its classes' chances count too; in them its flagged rows come first.
RARE = "rare-mark"


@dataclass(frozen=True)
class Ranking:
    """(N,) combined score (higher is more suspicious), p-like rank and flags; the named classes, worst first.

    Attributes:
        p: share of the same class's ordinary rows that score at least as high; 0 where none does.
        index: how far each class falls into two parts.
        chance: of every class, the smallest chance of what poison alone shows, by the tests of cross-split and
            rare-mark and by the words' check; corrected over all tests of all classes.
        named: (N,) bool, flagged rows of the proven classes: the finding. At most a share of `ORDINARY` of them would
            be ordinary rows, as far as the natural part of their class tells.
        split: classes that cross-split names, or that hold a mark or a word which its test confirms.
        proven: those whose chance is at or below the level.
    """

    combined: Tensor
    p: Tensor
    flagged: Tensor
    named: Tensor
    split: tuple[int, ...]
    proven: tuple[int, ...]
    index: Mapping[int, float]
    chance: Mapping[int, float]


def rank(
    y: Tensor,
    found: Mapping[str, Suspicion],
    false_alarms: float,
    level: float,
    words: Sequence[Word] = (),
    without: Mapping[int, float] | None = None,
) -> Ranking:
    """Join the filters' scores within each class.

    In a class that cross-split names, a row's place between the two parts counts, and the natural part is what p
    compares with; in a class that is known by a mark or a word, its rows come first. In other classes it is the mean
    rank over the filters, and p compares with the whole class: by construction no more than `false_alarms` of those
    rows are flagged.

    `p_mark` counts where the index names the class, `p_relabelled` and the chance of a rare mark everywhere. So the
    correction is by the number of classes times that of the tests in each, times two where words were looked at. In
    `without` is, for classes whose rows were read without their mark, the chance that so many lose their label: it must
    be small too.
    """
    decides = found[DECIDES]
    assert decides.flagged is not None
    classes, cutoff = decides.evidence["classes"], float(decides.evidence["cutoff"])
    index = {int(c): float(v["index"]) for c, v in classes.items()}
    foreign, kinds = decides.flagged, 1 + bool(words)
    rare: Mapping[str, Mapping[str, float]] = found[RARE].evidence["marks"] if RARE in found else {}
    tests = kinds * (2 + (RARE in found)) * len(classes)
    cut = {c for c in index if bool(foreign[y == c].any())}
    chance = {
        int(c): min(
            1.0,
            tests
            * min(
                v.get("p_relabelled", 1.0),
                v.get("p_mark", 1.0) if v["index"] > cutoff else 1.0,
                rare[c]["p"] if c in rare else 1.0,
            ),
        )
        for c, v in classes.items()
    }
    by_word = {w.label: w for w in sorted(words, key=lambda w: -w.p) if kinds * w.p <= level}
    for label, word in by_word.items():
        chance[label] = min(chance.get(label, 1.0), kinds * word.p)
    marked = dict[int, Tensor]()
    for c, told in rare.items():
        named = found[RARE].flagged
        if named is not None and tests * told["p"] <= level:
            marked[int(c)] = named & (y == int(c))
    held = {label: word.rows for label, word in by_word.items()} | marked
    for label, unlike in (without or {}).items():
        chance[label] = max(chance.get(label, 1.0), unlike)
    kept = {c for c in held if (without or {}).get(c, 0.0) <= level}
    proven = {c for c in cut if chance[c] <= level} | kept
    split = sorted(cut | set(held), key=lambda c: (c not in proven, -index.get(c, 0.0)))
    voices = [s.scores for s in found.values()]
    combined, p = torch.zeros(len(y)), torch.ones(len(y))
    for label in y.unique().tolist():
        rows = (y == label).nonzero().flatten()
        scores = index.get(label, 0.0) / cutoff * torch.stack([_ranks(v[rows]) for v in voices]).mean(0)
        ordinary = torch.ones(len(rows), dtype=torch.bool)
        if label in cut:
            scores, ordinary = decides.scores[rows] / cutoff, ~foreign[rows]
        if label in held:
            first = held[label][rows]
            scores, ordinary = scores + first * (1 + scores.amax().clamp_min(0)), ordinary & ~first
        combined[rows] = scores
        usual = scores[ordinary].sort().values
        p[rows] = (len(usual) - torch.searchsorted(usual, scores)).float() / max(len(usual), 1)
    flagged, named = p <= false_alarms, torch.zeros(len(y), dtype=torch.bool)
    for label in proven:
        mine = y == label
        ordinary = mine & ~foreign & ~held.get(label, foreign)
        named |= mine & (p <= _threshold(p[mine], int(ordinary.sum()), false_alarms))
        flagged[mine] = named[mine]
    split_first = tuple(c for c in split if c in proven)
    return Ranking(combined, p, flagged, named, tuple(split), split_first, index, chance)


def _threshold(p: Tensor, ordinary: int, false_alarms: float) -> float:
    """The largest p up to `false_alarms` at which, of the rows at or below it, at most `ORDINARY` would be ordinary: a
    small finding in a large class would drown in the budget otherwise."""
    ordered = p.sort().values
    expected = ordered * ordinary
    fits = (expected <= ORDINARY * torch.arange(1, len(p) + 1)) & (ordered <= false_alarms)
    return float(ordered[fits].max()) if bool(fits.any()) else 0.0


def _ranks(values: Tensor) -> Tensor:
    """(n,) mid-ranks in (0, 1): ties get the same."""
    ordered = values.sort().values
    low = torch.searchsorted(ordered, values)
    high = torch.searchsorted(ordered, values, right=True)
    return (low + high).float() / (2 * len(values))
