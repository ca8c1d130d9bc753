"""Unlearning: rows that carry the recovered trigger with their true labels teach the model to ignore it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import torch
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.defense import ModelDetector, Repair, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import generator, seed_of
from torchbands.core.trigger import Trigger
from torchbands.learners.finetune import finetune


def _neural_cleanse() -> ModelDetector:
    found = build("neural-cleanse", "model-detector")
    assert isinstance(found, ModelDetector)
    return found


@method("unlearn", paper="Wang et al., S&P 2019", needs=("gradients", "weights", "clean:2500"), version=2)
class Unlearn(Repair):
    """Neural Cleanse's repair: fine-tunes on clean rows, some of which carry the recovered trigger.

    `repair` lets a detector search the trigger first; `without` takes one that was found already.

    Deviations from the paper: 10 epochs of a few thousand rows instead of one epoch over a tenth of the training data;
    rows of the suspected target carry no trigger, for they have nothing to unlearn; where a source class is suspected,
    half of its rows carry the trigger as well. Any detector that recovers a trigger may search it, and the search may
    be repeated on the repaired model (`rounds`).
    """

    search: ModelDetector = field(default_factory=_neural_cleanse)
    """The trigger inversion that finds the trigger."""
    share: float = 0.2
    """Fraction of the clean rows that carry the recovered trigger, with their true labels."""
    epochs: int = 10
    """Epochs over the clean rows."""
    lr: float = 0.01
    """Peak learning rate."""
    batch: int = 64
    """Batch size."""
    rounds: int = 1
    """Rounds of search and unlearning; the rows of each round carry all triggers found so far, in turn."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise InputError(f"share is a fraction above 0 and at most 1, got {self.share}")
        if self.rounds < 1:
            raise InputError(f"rounds is at least 1, got {self.rounds}")

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        found = self.search.inspect(model, clean, seed=seed)
        if found.trigger is None:
            raise NotApplicable(f"{self.search.name} recovered no trigger, so there is none to unlearn")
        return self.without((found.trigger,), model, clean, target=found.target, source=found.source, seed=seed)

    def without(
        self,
        found: Sequence[Trigger],
        model: Model,
        clean: Data,
        *,
        target: int | None = None,
        source: int | None = None,
        seed: int = 0,
    ) -> Model:
        """A copy of the model that was taught to ignore triggers found before."""
        repaired, triggers = model.clone(), list(found)
        for at in range(self.rounds):
            if at > 0:
                again = self.search.inspect(repaired, clean, seed=seed_of("unlearn", seed, at)).trigger
                triggers += [again] if again is not None else []
            rows = stamped_rows(clean.y, self.share, target, source, seed + at)
            taught = clean
            for part, one in zip(rows.tensor_split(len(triggers)), triggers):
                taught = taught.stamp(part, one, label=None, seed=seed_of("unlearn", seed, at))
            taught = Data(whole(taught.x), clean.y)
            finetune(repaired, taught, epochs=self.epochs, lr=self.lr, batch=self.batch, seed=seed + at)
        return repaired


def stamped_rows(y: Tensor, share: float, target: int | None, source: int | None, seed: int) -> Tensor:
    """The int64 rows that carry the trigger: a share of all, none of the target's, half of the source's besides.

    Args:
        y: (N,) true labels.
    """
    order = torch.randperm(len(y), generator=generator("unlearn", seed))
    pool = order if target is None else order[y[order] != target]
    cut = max(1, round(share * len(y)))
    if source is None:
        return pool[:cut]
    mine = y[pool] == source
    first = mine & (mine.cumsum(0) <= (int(mine.sum()) + 1) // 2)
    first[:cut] = True
    return pool[first]
