"""Short mask inversion per target: the smallest trigger that sends samples of all classes to one class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, seed_of
from torchbands.core.trigger import Trigger

from ._inversion import Quick, fewer, frozen, of_all, others, rows_of, search, searched, told


@method(
    "target-inversion",
    paper="after Wang et al., S&P 2019 (Neural Cleanse)",
    needs=("gradients", "clean:200"),
    version=2,
)
class TargetInversion(ModelDetector):
    """One short mask-and-pattern search per class; per_class is -log of the smallest successful size.

    The score is the gap of the smallest log size to the median class (with 2 classes: to the other one). It means
    little alone: sizes of classes differ by nature, so they are to be compared with the same class in reference
    models (`torchbands.scanner`). No rule of its own flags anything.

    Deviations from Neural Cleanse: a fixed, short number of steps; the weight on the size follows success at every
    step; success on `threshold` of `rows` samples of other classes.
    """

    rows: int = 20
    """Samples of other classes per target."""
    budget: int = 400
    """Samples over all targets: with many classes each gets fewer, but at least 8."""
    steps: int = 55
    """Steps of Adam."""
    lr: float = 0.25
    """Learning rate of Adam; doubled where triggers are mixtures of tokens."""
    threshold: float = 0.9
    """Fraction of the samples that must reach the target."""
    first: float = 1.0
    """Initial weight of the trigger's size, as a fraction of the whole sample."""
    up: float = 1.2
    """Factor on the weight after a success."""
    down: float = 1.35
    """Factor by which the weight is divided after a failure."""
    precision: Literal["float32", "fast"] = "fast"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        model = model.at_precision(self.precision)
        at = searched(model.classes)
        e, rows, rules, rng = self._prepared(model, clean, seed, at)
        with frozen(model.module):
            found, triggers, share = search(model, e, rows, at, rules, rng)
        logs = found.size.clamp_min(1e-3).log()
        best = int(logs.argmin())
        return Finding(
            score=float(logs.median() - logs.min()) if model.classes > 2 else float(logs.max() - logs.min()),
            target=int(at[best]),
            trigger=triggers.get(best),
            per_class=of_all(-logs, at, model.classes),
            evidence={
                **told(at, model.classes),
                "sizes": [round(v, 3) for v in found.size.tolist()],
                "share_of_sample": [round(v, 5) for v in share.tolist()],
                "success": [round(v, 3) for v in found.success.tolist()],
            },
        )

    def work(self, model: Model, rows: int) -> Work:
        n = fewer(self.rows, self.budget, model.classes)
        return Work(min(rows, max(4 * n, 2 * model.classes)), len(searched(model.classes)) * n * self.steps)

    def triggers(self, model: Model, clean: Data, *, seed: int = 0) -> tuple[Trigger, ...]:
        """The cheapest trigger of every class or, where none succeeded, what its search ended with."""
        require(self, model, clean)
        model = model.at_precision(self.precision)
        classes = torch.arange(model.classes)
        e, rows, rules, rng = self._prepared(model, clean, seed, classes)
        with frozen(model.module):
            _, made, _ = search(model, e, rows, classes, rules, rng, keep=len(classes), failed=True)
        return tuple(made[k] for k in range(model.classes))

    def _prepared(self, model: Model, clean: Data, seed: int, at: Tensor) -> tuple[Encoded, Tensor, Quick, RowRng]:
        """Embedded samples, n rows of them for each of the classes `at`, rules and random numbers."""
        n = fewer(self.rows, self.budget, model.classes)
        picked = clean.sample(max(4 * n, 2 * model.classes), "target-inversion", seed, balanced=True)
        said = model.logits(picked.x).argmax(1)
        rows = torch.stack([rows_of(others(picked.y, k), n, said != k) for k in at.tolist()])
        lr = self.lr * (2 if model.modality.discrete else 1)
        rules = Quick(self.steps, lr, (0.5, 0.9), self.first, self.up, self.down, self.threshold)
        return model.embed(picked.x), rows, rules, RowRng(seed_of(self.name, seed), at)
