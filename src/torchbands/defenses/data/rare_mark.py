"""Rare mark: rows whose label is only explained by a few other rows like them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data, take
from torchbands.core.defense import DataFilter, Suspicion, per_row, require
from torchbands.core.errors import Diverged
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.recipe import Learner
from torchbands.core.seeding import generator, seed_of
from torchbands.learners.sgd import SGD

from ._crossing import SHOWN, balanced, halves
from ._sifters import fresh

#: Epochs that few rows get at most.
MOST_EPOCHS = 40
#: Rows that are compared at once.
CHUNK = 4096


@dataclass(frozen=True)
class Tested:
    """One class's strange rows.

    Attributes:
        rows: (N,) which they are. learned: of these, how many the network that was taught the other half of them knows.
        taken: largest share of another class's ordinary rows to which that network gives this label.
        mostly: largest share of the strange rows that were taken for one and the same class before.
        p: chance of so many learned ones where each is learned by chance.
    """

    rows: Tensor
    learned: int
    taken: float
    mostly: float
    p: float


@method("rare-mark", paper="after Zeng et al., USENIX Security 2023, arXiv:2210.06516", needs=("weights",))
class RareMark(DataFilter):
    """Looks for classes with a few rows that are learned only if shown often, and are then recognised at once.

    A few poisoned rows in thousands make no part of their class that a cut would find, and half of them teach a network
    nothing. But a network that was trained on the other half of the data takes them, with certainty, for what they were
    before they were relabelled. So rows are *strange* that a network of the other half gives another class and their
    own at most `strange`; all else is ordinary. Fresh networks, again on one half each, are then shown the strange rows
    of a class as often as its ordinary ones. Where labels are noise, or a thing lies between two classes, the other
    half's strange rows stay strange, or ordinary rows of other classes are taken for them. Rows with a mark in common
    are known, and nothing else is.

    A class has `p`, the exact binomial tail of its learned strange rows at a share of `learned`, which never-poisoned
    classes did not reach (that share is chosen, not derived), and 1 where more than `taken` of another class's ordinary
    rows get the label, or more than half of the strange rows were taken for one class, as a second kind of thing would
    be: so it needs four classes or more, and poison from one class alone is not seen. No correction over the classes is
    in it; a class is flagged where p is at most `level` over the number of classes with strange rows.

    A row's score is how little its label was expected, and for the strange rows of a class how well they were then
    learned, times -log10 of the class's p. Copies of a row are always in the same half, for they would explain each
    other.

    Deviations from the paper: everything but the insight that what was not trained on poison does not know it.

    Cost: two trainings and two passes, and the same again where there are strange rows.
    """

    strange: float = 0.05
    """A misclassified row is strange if the other half's network gives its label at most this probability."""
    fewest: int = 8
    """Minimum number of strange rows for a class to be tested."""
    learned: float = 0.35
    """Fraction of strange rows that may be learned by chance."""
    taken: float = 0.1
    """Fraction of other classes' ordinary rows that may be given the label."""
    level: float = 0.01
    """Significance level of the test, over all tested classes."""
    learner: Learner = SGD(epochs=4, batch=128, lr=3e-3, optimizer="adamw")
    """How the networks are trained."""
    steps: int = 200
    """Minimum number of training steps; small data sets get more epochs."""

    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        require(self, model)
        half, y = _with_copies(data, seed), data.y
        before = self._crossed(data, model, y, half, (seed, "before"))
        own = before.gather(1, y[:, None]).squeeze(1)
        strange = (before.argmax(1) != y) & (own <= math.log(self.strange))
        count = torch.bincount(y[strange], minlength=model.classes)
        tested = dict[int, Tested]()
        scores, flagged = 1 - own.exp(), torch.zeros(len(data), dtype=torch.bool)
        judged = (count >= self.fewest).nonzero().flatten().tolist() if model.classes > 3 else []
        if judged:
            few = strange & (count[y] < self.fewest)
            group = (y + model.classes * strange).masked_fill(few, -1)
            after = self._crossed(data, model, group, half, (seed, "after"))
            tested = {label: self._test(label, y, strange, few, before, after) for label in judged}
            for label, found in tested.items():
                rows = found.rows
                scores[rows] += -math.log10(max(found.p, 1e-300)) * after[rows, label].exp()
                if found.p <= self.level / len(judged):
                    flagged |= rows & (after.argmax(1) == label)
        evidence = {
            str(label): {
                "index": round(-math.log10(max(found.p, 1e-300)), 3),
                "strange_rows": int(found.rows.sum()),
                "learned": found.learned,
                "most_taken_of_another_class": round(found.taken, 4),
                "mostly_taken_for_one_class": round(found.mostly, 4),
                "p": found.p,
            }
            for label, found in tested.items()
        }
        said = {"marks": evidence, "strange_rows": int(strange.sum())}
        return Suspicion(per_row(scores, len(data), self.name), flagged, said)

    def _crossed(self, data: Data, model: Model, group: Tensor, half: Tensor, identity: tuple[object, ...]) -> Tensor:
        """(N, K) log-probabilities of every row by the network of the other half; groups are shown equally often, and
        rows of group -1 are not shown."""
        held = Data(data.x, data.y)
        out = torch.full((len(data), model.classes), -math.log(model.classes))
        for fold in (0, 1):
            rng = generator("rare-mark", fold, *identity)
            at = balanced(((half == fold) & (group >= 0)).nonzero().flatten(), group, SHOWN, rng)
            tested = (half != fold).nonzero().flatten()
            if not len(at) or not len(tested):
                continue
            network = fresh(model, "rare-mark", fold, *identity)
            try:
                self._learner_for(len(at)).fit(network, held.some(at), seed=seed_of(*identity))
                out[tested] = F.log_softmax(network.logits(held.some(tested).x), 1)
            except Diverged:
                pass  # what was not learned is known to nobody
        return out

    def _learner_for(self, rows: int) -> Learner:
        if not isinstance(self.learner, SGD):
            return self.learner
        epochs = math.ceil(self.steps / math.ceil(rows / self.learner.batch))
        return self.learner.but(epochs=min(MOST_EPOCHS, max(self.learner.epochs, epochs)))

    def _test(self, label: int, y: Tensor, strange: Tensor, few: Tensor, before: Tensor, after: Tensor) -> Tested:
        from scipy.stats import binom

        classes, rows, given = before.shape[1], strange & (y == label), after.argmax(1) == label
        n, learned = int(rows.sum()), int((rows & given).sum())
        others = ~strange & ~few & (y != label)
        among = torch.bincount(y[others], minlength=classes).clamp_min(1)
        taken = float((torch.bincount(y[others & given], minlength=classes) / among).max())
        mostly = float(torch.bincount(before[rows].argmax(1), minlength=classes).max()) / n
        shown = taken <= self.taken and mostly <= 0.5
        return Tested(rows, learned, taken, mostly, float(binom.sf(learned - 1, n, self.learned)) if shown else 1.0)


def _with_copies(data: Data, seed: int) -> Tensor:
    """(N,) 0 or 1: a random half of every class, copies of a row together."""
    half, kind = halves(data.y, generator("rare-mark", len(data), seed)), kinds(data)
    leader = torch.full((len(data),), len(data)).scatter_reduce(0, kind, torch.arange(len(data)), "amin")
    return half[leader[kind]]


def kinds(data: Data) -> Tensor:
    """(N,) an index of different rows. Two that share one by accident only end up in the same half."""
    if isinstance(data.x, list):
        first = dict[str, int]()
        return torch.tensor([first.setdefault(text, len(first)) for text in data.x])
    rng, told = generator("rare-mark"), []
    for rows in torch.arange(len(data)).split(CHUNK):
        x = take(data.x, rows)
        assert isinstance(x, Tensor)
        flat = x.flatten(1).double()
        told.append(flat @ torch.randn(flat.shape[1], 1, generator=rng.manual_seed(0), dtype=torch.float64))
    kind: Tensor = torch.cat(told).float().flatten().unique(return_inverse=True)[1]
    return kind
