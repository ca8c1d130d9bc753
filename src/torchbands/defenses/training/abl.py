"""Anti-backdoor learning: poison is learned first, so what is fitted early is isolated and then unlearned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Training
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seed_of
from torchbands.core.task import Hook, Learner, Progress, Task


@method("abl", paper="Li et al., NeurIPS 2021, arXiv:2110.11571", needs=("training-run", "gradients"))
class AntiBackdoorLearning(Training):
    """Local gradient ascent keeps ordinary rows from being fitted early; the rows fitted all the same are suspicious.

    The `isolate` share of rows with the lowest loss after the early stage is set aside, training goes on, and at last
    the model is driven away from the isolated rows' labels by gradient ascent.

    Deviations from the paper: its 20, 60 and 20 epochs of 100 are kept as shares of the task's own epochs; training
    goes on with all rows, as in the paper, but unlearning stops as soon as the isolated rows are fitted no better
    than by chance, since small networks are otherwise destroyed.

    Cost: one training, plus seconds.
    """

    gamma: float = 0.5
    """Loss below which a row's gradient is turned round in the early stage."""
    early: float = 0.2
    """Share of the epochs spent in the early stage."""
    isolate: float = 0.01
    """Share of the rows that is isolated."""
    unlearn_epochs: int = 20
    """At most this many passes of gradient ascent over the isolated rows."""
    unlearn_lr: float = 5e-4
    """Learning rate of the ascent."""

    def __post_init__(self) -> None:
        if not 0 < self.early < 1 or not 0 < self.isolate < 1:
            raise InputError(f"{self.name}: early and isolate are shares between 0 and 1")

    def train(self, task: Task, data: Data, *, seed: int = 0, progress: Progress | None = None) -> Model:
        early, late = self._stages(task.learner)
        model = task.fresh(seed)
        early.fit(model, data, hooks=(LocalAscent(self.gamma),), seed=seed_of("abl early", seed), progress=progress)
        losses = F.cross_entropy(model.logits(data.x), data.y, reduction="none")
        isolated = data[losses.argsort()[: max(1, round(self.isolate * len(data)))]]
        late.fit(model, data, seed=seed_of("abl late", seed), progress=progress)
        self._unlearn(model, isolated, seed)
        return model

    def _stages(self, learner: Learner) -> tuple[Learner, Learner]:
        epochs = getattr(learner, "epochs", None)
        if epochs is None or "epochs" not in {f.name for f in dataclasses.fields(learner)}:
            raise NotApplicable(f"{learner.name} has no epochs to be cut into stages")
        first = max(1, round(self.early * epochs))
        return learner.but(epochs=first), learner.but(epochs=max(1, epochs - first))

    def _unlearn(self, model: Model, isolated: Data, seed: int) -> None:
        rng = generator("abl unlearn", seed)
        optimizer = torch.optim.SGD(model.module.parameters(), lr=self.unlearn_lr, momentum=0.9, weight_decay=1e-4)
        for _ in range(self.unlearn_epochs):
            fitted = (model.logits(isolated.x).argmax(1) == isolated.y).float().mean()
            if float(fitted) <= 1 / model.classes:
                return
            with model.training():
                for part in isolated.batches(64, rng):
                    loss = -F.cross_entropy(model.run(model.encode(part.x)).float(), part.y.to(model.device))
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.module.parameters(), 20.0)
                    optimizer.step()


class LocalAscent(Hook):
    """sign(loss - gamma) * loss per row: rows fitted better than gamma are pushed back."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor:
        e = x if isinstance(x, Encoded) else model.encode(augment(x))
        losses = F.cross_entropy(model.run(e).float(), y, reduction="none")
        return (torch.sign(losses.detach() - self.gamma) * losses).mean()
