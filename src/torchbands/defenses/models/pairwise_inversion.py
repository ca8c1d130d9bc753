"""Pairwise sparse inversion: the smallest trigger from one class to another, for the pairs worth searching."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, seed_of
from torchbands.core.trigger import Trigger

from ._inversion import Found, Quick, frozen, rows_of, search


@method(
    "pairwise-inversion",
    paper="after Shen et al., ICML 2021 (K-Arm), arXiv:2102.05123",
    needs=("gradients", "clean:200"),
    version=2,
)
class PairwiseInversion(ModelDetector):
    """One short mask-and-pattern search per (source, target) pair; per_pair is -log of the smallest size.

    Sees source-specific and all-to-all backdoors, which a search over all sources does not. With more than `pairs`
    pairs, K-Arm's pre-screen chooses which are searched: those whose target stands highest among the predictions for
    the source's samples. `of_pairs` answers for any other pair: the scanner asks all models of a pool about
    what stands out in one. The evidence has K-Arm's symmetry ratio, size(t -> s) / size(s -> t): two classes that look
    alike are near in both directions, a planted trigger is near in one.

    The score is the gap of the smallest log size to the median pair. Pair sizes differ by nature and are to be
    compared with the same pair in reference models (`torchbands.scanner`). No rule of its own flags anything.

    Deviations from K-Arm: all arms are pulled the same number of times (a fixed, short number of steps) instead of by
    a bandit, and absolute size bounds, which hold for one image size, are not used.
    """

    rows: int = 5
    """Samples of the source class."""
    steps: int = 45
    """Steps of Adam."""
    lr: float = 0.25
    """Learning rate of Adam; doubled where triggers are mixtures of tokens."""
    threshold: float = 0.8
    """Fraction of the samples that must reach the target."""
    first: float = 1.0
    """Initial weight of the trigger's size, as a fraction of the whole sample."""
    up: float = 1.2
    """Factor on the weight after a success."""
    down: float = 1.35
    """Factor by which the weight is divided after a failure."""
    pairs: int = 110
    """Maximum number of (source, target) pairs to search."""
    precision: Literal["float32", "fast"] = "fast"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        model = model.at_precision(self.precision)
        there = self._picked(model, clean, seed).y.unique()
        if len(there) < 2:
            raise NotApplicable("pairs need clean samples of at least two classes")
        chosen = self._arms(model, clean, there, seed)
        found, triggers = self._search(model, clean, chosen, seed)
        logs = found.size.clamp_min(1e-3).log()
        best = int(logs.argmin())
        table = torch.full((model.classes, model.classes), torch.nan)
        table[chosen[:, 0], chosen[:, 1]] = -logs
        source, target = chosen[best].tolist()
        symmetry = float((table[source, target] - table[target, source]).exp())
        return Finding(
            score=float(logs.median() - logs.min()),
            target=target,
            source=source,
            trigger=triggers.get(best),
            per_pair=table,
            evidence={
                "searched": len(chosen),
                "smallest": round(float(found.size[best]), 3),
                "median": round(float(found.size.median()), 3),
                "symmetry": round(symmetry, 3) if symmetry == symmetry else None,
            },
        )

    def work(self, model: Model, rows: int) -> Work:
        every = model.classes * (model.classes - 1)
        screened = min(rows, 2000) if every > self.pairs else 0
        picked = min(rows, 3 * self.rows * model.classes)
        return Work(picked + screened, min(every, self.pairs) * self.rows * self.steps)

    def of_pairs(self, model: Model, clean: Data, pairs: Tensor, *, seed: int = 0) -> Tensor:
        """(P, 2) int64 (source, target) -> (P,) -log of the smallest sizes: what `inspect` finds where it searches the
        same pair. NaN where there are no clean samples of the source."""
        require(self, model, clean)
        model, out = model.at_precision(self.precision), torch.full((len(pairs),), torch.nan)
        there = torch.isin(pairs[:, 0], self._picked(model, clean, seed).y.unique())
        if there.any():
            out[there] = -self._search(model, clean, pairs[there], seed)[0].size.clamp_min(1e-3).log()
        return out

    def trigger_of(self, model: Model, clean: Data, source: int, target: int, *, seed: int = 0) -> Trigger | None:
        """The smallest trigger of one pair, where the search found any."""
        pair = torch.tensor([[source, target]])
        return self._search(model.at_precision(self.precision), clean, pair, seed)[1].get(0)

    def _picked(self, model: Model, clean: Data, seed: int) -> Data:
        return clean.sample(3 * self.rows * model.classes, "pairwise-inversion", seed, balanced=True)

    def _search(self, model: Model, clean: Data, pairs: Tensor, seed: int) -> tuple[Found, dict[int, Trigger]]:
        """The smallest triggers of some pairs; each starts where the number of its pair says."""
        picked = self._picked(model, clean, seed)
        right = model.logits(picked.x).argmax(1) == picked.y
        of = {s: rows_of(picked.y == s, self.rows, right) for s in pairs[:, 0].unique().tolist()}
        rows = torch.stack([of[s] for s in pairs[:, 0].tolist()])
        lr = self.lr * (2 if model.modality.discrete else 1)
        rules = Quick(self.steps, lr, (0.5, 0.9), self.first, self.up, self.down, self.threshold)
        rng = RowRng(seed_of(self.name, seed), pairs[:, 0] * model.classes + pairs[:, 1])
        with frozen(model.module):
            found, triggers, _ = search(model, model.embed(picked.x), rows, pairs[:, 1], rules, rng)
        return found, triggers

    def _arms(self, model: Model, clean: Data, there: Tensor, seed: int) -> Tensor:
        """(P, 2) int64 pairs to search: all, or those that the clean logits call the nearest."""
        every = torch.cartesian_prod(there, torch.arange(model.classes))
        every = every[every[:, 0] != every[:, 1]]
        if len(every) <= self.pairs:
            return every
        seen = clean.sample(200 * model.classes, "pairwise-inversion arms", seed, balanced=True)
        seen = seen.sample(2000, "pairwise-inversion few", seed, balanced=True)
        logits = model.logits(seen.x)
        logits = logits - logits.mean(1, keepdim=True)
        mean = torch.zeros(model.classes, model.classes).index_add_(0, seen.y, logits)
        mean = mean / torch.bincount(seen.y, minlength=model.classes).clamp_min(1)[:, None]
        near = mean[every[:, 0], every[:, 1]]
        return every[near.topk(self.pairs).indices.sort().values]
