"""Cross-split: cut each class in two; a model trained on one part does not know the other where one part is poison."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import Diverged
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.task import Learner
from torchbands.learners.sgd import SGD

from ._sifters import fresh
from .activation_clustering import two_means
from .subspace import Centred, principal

#: A class with fewer rows is not judged. Epochs that few rows get at most.
FEWEST, MOST_EPOCHS = 20, 40


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
    """Which class falls into two parts that know nothing of each other?

    META-SIFT's insight is that a model trained on the unpoisoned part of a data set predicts the poisoned part badly.
    Its search for that part starts from nothing and, on data where a trigger is learned within the first epoch, does
    not find it (see `meta-sift`). Here the features of the finished model propose one cut per class (2-means in the
    leading directions), and two fresh networks of the same architecture try it: one is trained on the larger part of
    every class, one on the smaller parts. A class's index is the separation of its parts (distance of the means along
    their axis in units of the pooled deviation) times the larger of the two mean cross-entropies across the cut, in
    units of log K. Above `cutoff` the class is contaminated. Its foreign part is the one that the other part's network
    knows better (a short cut was added to rows that keep their label); where neither is known better, the one taken for
    more different classes, as relabelled rows are; else the smaller one.

    A row's score is its class's index times its place on the axis from the natural part (0) to the foreign one (1).
    No rate, no trusted rows. The cutoffs are chosen, not derived: they lie between what never-poisoned classes
    and classes with a learned backdoor showed on Fashion-MNIST and digits. Poison that the model did not learn is not
    found.

    Deviations from the paper: everything but the insight.

    Cost: one pass for the features, then one training and one pass on top.
    """

    crossing: bool = True
    """Train the two networks; without, the index is the separation alone."""
    dims: int = 10
    """Leading directions in which a class is cut."""
    learner: Learner = SGD(epochs=4, batch=128, lr=3e-3, optimizer="adamw")
    """Trains the two networks."""
    steps: int = 200
    """Steps that it takes at least, by more epochs where there are few rows."""
    cutoff: float = 15.0
    """Index above which a class is contaminated."""
    separation_cutoff: float = 6.0
    """The same without crossing, which tells less: rare poison may lie below it."""
    known: float = 0.2
    """By how much the shares of the parts that the other network knows must differ to tell which one is foreign."""
    least: float = 0.25
    """A smaller part below this share of its class is the foreign one in any case."""
    spread: float = 0.3
    """By how many nats of entropy over wrongly predicted classes the larger part must exceed the smaller one to count
    as the foreign one."""

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
        crossed = self._crossed(data, model, cuts, seed) if self.crossing and cuts else None
        limit = self.cutoff if self.crossing else self.separation_cutoff
        for label, cut in cuts.items():
            index, place, foreign = cut.separation, cut.place, cut.foreign
            if crossed is not None:
                losses, turned = self._judge(crossed, cut, label, model.classes)
                index *= max(losses) / math.log(model.classes)
                if turned:
                    place, foreign = 1 - place, ~foreign
            scores[cut.rows] = index * place
            if index > limit:
                flagged[cut.rows[foreign]] = True
            evidence[str(label)] = {
                "index": round(index, 3),
                "separation": round(cut.separation, 3),
                "foreign_share": round(float(foreign.float().mean()), 4),
                "larger_part_is_foreign": bool(foreign.float().mean() > 0.5),
                "cross_entropies": None if crossed is None else [round(v, 3) for v in losses],
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

    def _crossed(self, data: Data, model: Model, cuts: dict[int, _Cut], seed: int) -> Tensor:
        """(N, K) logits of every row by the network that was trained on the other part of its class."""
        small = torch.zeros(len(data), dtype=torch.bool)
        for cut in cuts.values():
            small[cut.rows[cut.foreign]] = True
        judged = torch.zeros(len(data), dtype=torch.bool)
        judged[torch.cat([cut.rows for cut in cuts.values()])] = True
        logits = torch.zeros(len(data), model.classes)
        for part, other in ((judged & ~small, judged & small), (judged & small, judged & ~small)):
            network = fresh(model, int(part[0]), seed)
            try:
                self._learner(int(part.sum())).fit(network, data.some(part), seed=seed)
            except Diverged:
                continue  # what was not learned is not judged: log K for every row
            logits[other] = network.logits(data.some(other).x)
        return logits

    def _learner(self, rows: int) -> Learner:
        """The learner, with more epochs for few rows."""
        if not isinstance(self.learner, SGD):
            return self.learner
        steps = math.ceil(rows / self.learner.batch)
        return self.learner.but(epochs=min(MOST_EPOCHS, max(self.learner.epochs, math.ceil(self.steps / steps))))

    def _judge(self, logits: Tensor, cut: _Cut, label: int, classes: int) -> tuple[tuple[float, float], bool]:
        """Mean cross-entropies of the smaller and larger part, and whether the larger one is the foreign one."""
        losses, entropies, known = [], [], []
        for mine in (cut.foreign, ~cut.foreign):
            part = logits[cut.rows[mine]]
            losses.append(float(F.cross_entropy(part, torch.full((len(part),), label))))
            known.append(float((part.argmax(1) == label).float().mean()))
            wrong = torch.bincount(part.argmax(1), minlength=classes).float()
            wrong[label] = 0
            share = wrong / wrong.sum().clamp_min(1)
            entropies.append(float(torch.special.entr(share).sum()))
        small = float(cut.foreign.float().mean())
        if abs(known[0] - known[1]) > self.known:  # one part teaches the other, which holds a short cut besides
            turned = known[1] > known[0]
        else:
            turned = entropies[1] > entropies[0] + self.spread
        return (losses[0], losses[1]), turned and small > self.least
