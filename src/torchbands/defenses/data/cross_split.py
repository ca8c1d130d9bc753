"""Cross-split: cut each class in two; networks trained on one part do not know the other where one part is poison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.recipe import Learner
from torchbands.learners.sgd import SGD

from ._crossing import Knowledge, cross, knowledge
from .activation_clustering import two_means
from .subspace import Centred, principal

#: A class with fewer rows is not judged. Epochs that few rows get at most.
FEWEST, MOST_EPOCHS = 20, 40
#: How far above chance, as a share of what is left of it, a part is known by its own networks, foreign and natural.
KIN, NATURAL = 0.5, 0.25
#: Share below which rows are not known by the other part's networks.
UNKNOWN = 0.3
#: Share of the rows of any other class that the foreign part's networks may give its label.
STRAY = 0.5
#: Separation that one Gaussian cut in halves does not reach (it shows 2.66).
TWO = 4.0


@dataclass(frozen=True)
class _Cut:
    """One class in two parts. rows, natural and foreign index the data; place is 0 at the natural centre and 1 at the
    foreign one."""

    rows: Tensor
    foreign: Tensor
    place: Tensor
    separation: float


@method("cross-split", paper="after Zeng et al., USENIX Security 2023, arXiv:2210.06516", needs=("features", "weights"))
class CrossSplit(DataFilter):
    """Splits each class in two and asks whether a network trained on one part recognises the other.

    META-SIFT's insight is that a model trained on the unpoisoned part of a data set predicts the poisoned part badly.
    Its search for that part starts from nothing and, on data where a trigger is learned within the first epoch, does
    not find it (see `meta-sift`). Here the features of the finished model propose one cut per class (2-means in the
    leading directions), and fresh networks of the same architecture try it: two are trained on the larger part of
    every class, two on the smaller parts, each on one half of the part, so that the other half shows what they know of
    fresh rows. A class's index is the separation of its parts (distance of the means along their axis in units of the
    pooled deviation) times the larger excess of the two mean cross-entropies across the cut over those of fresh rows,
    in units of log K: where labels do not follow from rows, nobody knows anything, and nothing stands out. Above
    `cutoff` the class is named.

    The evidence of a class has two chances at most, by exact binomial tails, of what poison alone shows; no correction
    over the classes is in them. `p_mark`: networks of the foreign part know fresh rows of it (they share a mark that
    works), those of the natural part fresh rows of theirs (labels follow from rows), the foreign part's networks
    do not give its label to rows of other classes (it is a mark, and not what other classes look like: labels that are
    noise teach just that), and they do not know the natural rows. `p_relabelled`: the same first three, the natural
    part's networks do not know the foreign rows, and no other class is taken for more than half of them, as one more
    kind of thing would be. The second needs four classes, and a cut that is wider than that of one group in two halves.
    A class with `p_relabelled` at or below `level` over twice the number of classes, for there are two tests, is named
    whatever its index. A class that is named by its index alone may be natural: two kinds of thing under one label look
    like this too.

    The foreign part is the one that the other part's networks know, where they know one clearly better (a short cut was
    added to rows that keep their label); where neither is known, the one taken for more different classes, as
    relabelled rows are; else the smaller one.

    A row's score is its class's index times its place on the axis from the natural part (0) to the foreign one (1).
    No rate, no trusted rows. The cutoffs are chosen, not derived: they lie between what never-poisoned classes
    and classes with a learned backdoor showed on Fashion-MNIST and digits. Poison that the model did not learn is not
    found.

    Deviations from the paper: everything but the insight.

    Cost: one pass for the features, then two trainings and two passes on top. Networks are shown as many rows of every
    class, 512 at most.
    """

    version = 2

    crossing: bool = True
    """Train networks on the parts; without it, the index is the separation alone."""
    dims: int = 10
    """Principal directions in which a class is split."""
    learner: Learner = SGD(epochs=4, batch=128, lr=3e-3, optimizer="adamw")
    """How the networks are trained."""
    steps: int = 200
    """Minimum number of training steps; small data sets get more epochs."""
    cutoff: float = 12.0
    """Index above which a class counts as contaminated."""
    separation_cutoff: float = 6.0
    """The same cutoff without `crossing`. The separation alone tells less: rare poison may stay below it."""
    level: float = 0.01
    """Significance level of the test for relabelled rows, over all classes."""
    known: float = 0.2
    """Minimum difference between the fractions of the two parts that the other network predicts correctly, for the
    part it knows less to count as the foreign one."""
    least: float = 0.25
    """A part smaller than this fraction of its class is always taken as the foreign one."""
    spread: float = 0.3
    """By how many nats of entropy over wrongly predicted classes the larger part must exceed the smaller one to be
    taken as the foreign one."""

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        features = model.outputs(data.x).features
        cuts = {}
        for label in data.y.unique().tolist():
            rows = (data.y == label).nonzero().flatten()
            if len(rows) >= FEWEST and (found := self._cut(Centred(features, rows), rows, seed)) is not None:
                cuts[label] = found
        scores, flagged = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
        evidence: dict[str, dict[str, object]] = {}
        known = self._known(data, model, cuts, seed) if self.crossing and cuts else {}
        limit = self.cutoff if self.crossing else self.separation_cutoff
        for label, cut in cuts.items():
            index, place, foreign, told = cut.separation, cut.place, cut.foreign, dict[str, Any]()
            if label in known:
                index *= known[label].excess() / math.log(model.classes)
                if self._turned(known[label], label):
                    place, foreign = 1 - place, ~foreign
                told = verdict(known[label], label, cut.separation, turned=foreign is not cut.foreign)
            scores[cut.rows] = index * place
            if index > limit or told.get("p_relabelled", 1.0) <= self.level / (2 * len(cuts)):
                flagged[cut.rows[foreign]] = True
            evidence[str(label)] = {
                "index": round(index, 3),
                "separation": round(cut.separation, 3),
                "foreign_share": round(float(foreign.float().mean()), 4),
                "larger_part_is_foreign": bool(foreign.float().mean() > 0.5),
                **told,
            }
        return Suspicion(per_row(scores, len(data), self.name), flagged, {"classes": evidence, "cutoff": limit})

    def _cut(self, centred: Centred, rows: Tensor, seed: int) -> _Cut | None:
        reduced = centred @ principal(centred, self.dims)
        small = two_means(reduced, 3, seed).argmin(1) == 1
        if not 2 <= int(small.sum()) <= len(rows) - 2:
            return None
        axis = reduced[small].mean(0) - reduced[~small].mean(0)
        along = reduced @ axis
        a, b = along[~small], along[small]
        gap = float(b.mean() - a.mean())
        pooled = math.sqrt(max(float(a.var() + b.var()) / 2, 1e-12))
        if gap <= 0:
            return None
        return _Cut(rows, small, (along - a.mean()) / gap, min(gap / pooled, 1e3))

    def _known(self, data: Data, model: Model, cuts: dict[int, _Cut], seed: int) -> dict[int, Knowledge]:
        part = torch.full((len(data),), -1)
        for cut in cuts.values():
            part[cut.rows] = cut.foreign.long()
        crossed = cross(data, model, part, self.learner_for, seed)
        return {label: knowledge(crossed, data.y, part, label) for label in cuts}

    def learner_for(self, rows: int) -> Learner:
        """The learner, with more epochs for few rows."""
        if not isinstance(self.learner, SGD):
            return self.learner
        steps = math.ceil(rows / self.learner.batch)
        return self.learner.but(epochs=min(MOST_EPOCHS, max(self.learner.epochs, math.ceil(self.steps / steps))))

    def _turned(self, told: Knowledge, label: int) -> bool:
        """Whether the larger part is the foreign one."""
        small, large = told.known(True), told.known(False)
        if (
            abs(small - large) > self.known and max(small, large) > 0.5
        ):  # one part teaches the other, which holds a short cut besides
            turned = large > small
        else:
            entropies = [entropy(said, label) for said in told.said]
            turned = entropies[1] > entropies[0] + self.spread
        return turned and told.sizes[0] / sum(told.sizes) > self.least


def entropy(said: Tensor, label: int) -> float:
    """Of how often each class but `label` was said, in nats."""
    wrong = said.double()
    wrong[label] = 0
    return float(torch.special.entr(wrong / wrong.sum().clamp_min(1)).sum())


def verdict(told: Knowledge, label: int, separation: float, *, turned: bool) -> dict[str, Any]:
    """What the networks knew, as shares, with `p_mark` and `p_relabelled` (see `CrossSplit`)."""
    from scipy.stats import binom

    s, l = (1, 0) if turned else (0, 1)  # foreign, natural
    classes, n, m = len(told.said[0]), told.sizes[s], told.sizes[l]
    chance = 1 / classes
    hits, among = told.strays[s].unbind(1)
    worst = float((hits / among.clamp_min(1)).max())
    both = max(
        float(binom.sf(told.kin_known[s] - 1, n, chance + KIN * (1 - chance))),
        float(binom.sf(told.kin_known[l] - 1, m, chance + NATURAL * (1 - chance))),
        float(binom.cdf(int(hits.sum()), int(among.sum()), UNKNOWN)) if worst <= STRAY else 1.0,
    )
    unmarked = float(binom.cdf(told.other_known[l], m, UNKNOWN))
    unknown, wrong = float(binom.cdf(told.other_known[s], n, UNKNOWN)), told.said[s].clone()
    wrong[label] = 0
    most, of = int(wrong.max()), int(wrong.sum())
    many = float(binom.cdf(most, of, 0.5)) if classes > 3 and separation > TWO else 1.0
    return {
        "p_mark": max(both, unmarked),
        "p_relabelled": max(both, unknown, many),
        "mostly_taken_for": round(most / max(of, 1), 3),
        "others_taken_by_foreign": round(worst, 3),
        "foreign_known_by_foreign": round(told.kin_known[s] / n, 3),
        "natural_known_by_natural": round(told.kin_known[l] / m, 3),
        "foreign_known_by_natural": round(told.other_known[s] / n, 3),
        "natural_known_by_foreign": round(told.other_known[l] / m, 3),
        "cross_entropies": [round(v, 3) for v in told.other],
    }
