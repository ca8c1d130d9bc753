"""Cross-prediction: what networks trained on one part of every class predict on unseen rows of either part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import Diverged
from torchbands.core.model import Model
from torchbands.core.recipe import Learner
from torchbands.core.seeding import generator

from ._sifters import fresh

#: Rows of a class that a network is shown at least, by repeating few, and at most.
SHOWN = (64, 512)
#: Nats of excess that every class has, so that rows of a class keep their order where nothing was found.
LEAST = 1e-3


@dataclass(frozen=True)
class Crossed:
    """(N, K) log-probabilities of every row.

    Attributes:
        kin: by the network of the row's own part that was trained on the other half of it.
        other: by the two networks of the other part, averaged.
    """

    kin: Tensor
    other: Tensor


@dataclass(frozen=True)
class Knowledge:
    """What is known of the smaller part S and the larger part L of one class.

    Attributes:
        kin, other: mean cross-entropies (S, L) by networks of the same and of the other part.
        kin_known, other_known: rows (S, L) that they give the class.
        said: (K,) how often networks of L give each class to rows of S; and the other way round.
        strays: (K, 2) how many rows of each class networks of S give this class, of how many, without its own and all
            in the other part; and the same of networks of L.
    """

    sizes: tuple[int, int]
    kin: tuple[float, float]
    other: tuple[float, float]
    kin_known: tuple[int, int]
    other_known: tuple[int, int]
    said: tuple[Tensor, Tensor]
    strays: tuple[Tensor, Tensor]

    def excess(self) -> float:
        """By how many nats networks of one part know the other worse than fresh rows of their own; the larger of both.

        Networks that do not know fresh rows of their own part say nothing by not knowing the other.
        """
        return max(self.other[0] - self.kin[1], self.other[1] - self.kin[0], LEAST)

    def known(self, small: bool) -> float:
        """Share of S, or of L, that the other part's networks know."""
        at = 0 if small else 1
        return self.other_known[at] / self.sizes[at]


def cross(
    data: Data, model: Model, part: Tensor, learner: Callable[[int], Learner], seed: int, shown: tuple[int, int] = SHOWN
) -> Crossed:
    """Train two fresh networks on each part, each on one half of it.

    Args:
        part: (N,) 0 for rows of the larger part of their class, 1 for the smaller, -1 for rows that are left out.
        learner: gives the learner for so many rows.

    What was not learned, because the training diverged, is known to nobody: log K for every row.
    """
    held = Data(data.x, data.y)
    rng = generator("crossing", len(data), seed)
    even = torch.full((model.classes,), -math.log(model.classes))
    kin, other = even.repeat(len(data), 1), torch.zeros(len(data), model.classes)
    for mine in (0, 1):
        rows, rest = (part == mine).nonzero().flatten(), (part == 1 - mine).nonzero().flatten()
        half = halves(data.y[rows], rng)
        for fold in (0, 1):
            taught, tested = rows[half == fold], rows[half != fold]
            said = even.expand(len(tested) + len(rest), -1)
            at = balanced(taught, data.y, shown, rng)
            network = fresh(model, mine, fold, seed)
            try:
                learner(len(at)).fit(network, held.some(at), seed=seed)
                said = F.log_softmax(network.logits(held.some(torch.cat([tested, rest])).x), 1)
            except Diverged:
                pass
            kin[tested] = said[: len(tested)]
            other[rest] += said[len(tested) :].exp() / 2
    return Crossed(kin, other.clamp_min(1e-12).log())


def halves(y: Tensor, rng: torch.Generator) -> Tensor:
    """(n,) 0 or 1: a random half of every class."""
    order = torch.randperm(len(y), generator=rng)
    order = order[y[order].argsort(stable=True)]
    half = torch.zeros(len(y), dtype=torch.long)
    half[order] = torch.arange(len(y)) % 2
    return half


def balanced(rows: Tensor, y: Tensor, shown: tuple[int, int], rng: torch.Generator) -> Tensor:
    """As many rows of every class, those of small classes repeated, so that a few poisoned rows are learned at all.
    None of none."""
    if len(rows) == 0:
        return rows
    count = torch.bincount(y[rows])
    size = min(max(int(count.max()), shown[0]), shown[1])
    order = rows[torch.randperm(len(rows), generator=rng)]
    order = order[y[order].argsort(stable=True)]
    start = count.cumsum(0) - count
    met = count.nonzero().flatten()
    return order[(start[met, None] + torch.arange(size) % count[met, None]).flatten()]


def knowledge(crossed: Crossed, y: Tensor, part: Tensor, label: int) -> Knowledge:
    """What is known of the parts of class `label`; y and part as `cross` was given them."""
    small, large = ((y == label) & (part == 1)).nonzero().flatten(), ((y == label) & (part == 0)).nonzero().flatten()
    given, classes = crossed.other.argmax(1) == label, crossed.other.shape[1]
    strays = []
    for judged in (0, 1):  # networks of the smaller parts judge the larger ones
        rows = (part == judged) & (y != label)
        counts = [torch.bincount(y[rows & some], minlength=classes) for some in (given, torch.ones_like(given))]
        strays.append(torch.stack(counts, 1))
    kin, other, kin_known, other_known, said = [], [], [], [], []
    for rows in (small, large):
        own, across = crossed.kin[rows], crossed.other[rows]
        kin.append(-float(own[:, label].mean()))
        other.append(-float(across[:, label].mean()))
        kin_known.append(int((own.argmax(1) == label).sum()))
        other_known.append(int((across.argmax(1) == label).sum()))
        said.append(torch.bincount(across.argmax(1), minlength=across.shape[1]))
    return Knowledge(
        (len(small), len(large)),
        (kin[0], kin[1]),
        (other[0], other[1]),
        (kin_known[0], kin_known[1]),
        (other_known[0], other_known[1]),
        (said[0], said[1]),
        (strays[0], strays[1]),
    )
