"""A3FL: in every round the trigger is optimised against the global model, and against one that has unlearned it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.images import image_shape
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, ClientHook, Hook, LocalTraining
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.learners.vectors import weights_of
from torchbands.triggers.image import MaskPattern


@method("a3fl", paper="Zhang et al., NeurIPS 2023, openreview:S6ajVZy6FA")
class A3FL(Attack):
    """Malicious clients share a patch that they optimise against the global model in every attack round.

    The patch is to reach the target on the global model, and on a copy of it that was trained to read stamped images
    as what they are: so it still works when honest clients have trained the backdoor away.

    Threat model: the attacker owns some clients, their rows and what they train.

    Deviations from the paper: `steps` batches a round in place of 200 passes, and the copy is trained anew every
    `refresh` of them; the patch is a square two pixels from the upper left corner.

    Cost: steps times one forward and backward pass through two models, once a round.
    """

    controls_training: ClassVar[bool] = True
    contract_declines: ClassVar[bool] = True

    rate: float = 0.25
    """Triggered images as a fraction of every batch of a malicious client."""
    size: int = 5
    """Side of the patch in pixels."""
    steps: int = 40
    """Optimiser steps for the patch per round."""
    step: float = 0.01
    """Step size of the patch (signed gradient)."""
    balance: float = 0.01
    """Weight of the adversarial copy's loss; multiplied by the cosine similarity of the two models' parameters."""
    unlearning: int = 5
    """Training steps in which the adversarial copy unlearns the patch."""
    refresh: int = 10
    """Patch steps after which the adversarial copy is re-created."""
    batch: int = 64
    """Batch size of the patch optimisation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size, self.steps, self.unlearning, self.refresh, self.batch) < 1 or self.step <= 0:
            raise InputError(f"{self.name}: size, steps, unlearning, refresh and batch are at least 1, step above 0")

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        channels, height, width = image_shape(self, task)
        mask = torch.zeros(1, height, width)
        mask[:, 2 : 2 + self.size, 2 : 2 + self.size] = 1.0
        return MaskPattern(weights={"mask": mask, "pattern": torch.full((channels, height, width), 0.5)})

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        start = self.test_trigger(task, seed)
        return (Adapting(self, start.weights["mask"], start.weights["pattern"], task.classes),)

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        (hook,) = hooks
        assert isinstance(hook, Adapting)
        return MaskPattern(weights={"mask": hook.mask.cpu(), "pattern": hook.pattern.cpu()})


class Adapting(ClientHook):
    """Keeps the patch from round to round.

    Args:
        mask, pattern: (1, H, W) and (C, H, W) in [0, 1].
    """

    def __init__(self, attack: A3FL, mask: Tensor, pattern: Tensor, classes: int) -> None:
        self.attack, self.mask, self.pattern, self.classes = attack, mask, pattern, classes
        self.rows: Data | None = None
        self.seen = -1

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.rows = data
        self.mask, self.pattern = self.mask.to(model.device), self.pattern.to(model.device)

    def train(self, local: LocalTraining) -> None:
        assert self.rows is not None
        if local.round.number != self.seen:
            self.seen = local.round.number
            self.adapt(local.model, self.rows, local.round.rng)
        local.run(None, Stamping(self))

    def stamp(self, x: Tensor) -> Tensor:
        return (1 - self.mask) * x + self.mask * self.pattern

    def adapt(self, model: Model, rows: Data, rng: torch.Generator) -> None:
        """Optimise the patch against a model, which is left as it is."""
        attack, fixed, copy, likeness = self.attack, model.clone(), model, 1.0
        wanting = (attack.relabel(rows.y, self.classes) != rows.y).nonzero().flatten()
        if len(wanting) == 0:
            return
        for number in range(attack.steps):
            some = wanting[torch.randint(len(wanting), (min(attack.batch, len(wanting)),), generator=rng)]
            x, y = take(rows.x, some).to(model.device), rows.y[some].to(model.device)
            if number % attack.refresh == 0:
                copy = self.unlearned(model, x, y)
                likeness = float(F.cosine_similarity(weights_of(copy), weights_of(model), dim=0))
            self.pattern = self.pattern.detach().requires_grad_()
            wanted = attack.relabel(y, self.classes)
            losses = [F.cross_entropy(m.run(m.encode(self.stamp(x))).float(), wanted) for m in (fixed, copy)]
            loss = losses[0] + attack.balance * likeness * losses[1]
            (slope,) = torch.autograd.grad(loss, self.pattern)
            self.pattern = (self.pattern - attack.step * slope.sign()).clamp(0, 1).detach()

    def unlearned(self, model: Model, x: Tensor, y: Tensor) -> Model:
        """A copy that was trained to read stamped images (N, C, H, W) as their true labels."""
        copy = model.clone()
        optimizer = torch.optim.SGD(copy.module.parameters(), lr=0.01, momentum=0.9)
        shown = self.stamp(x).detach()
        for _ in range(self.attack.unlearning):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(copy.run(copy.encode(shown)).float(), y).backward()
            optimizer.step()
        return copy


class Stamping(BatchHook):
    """The first images of a batch, which is in random order, carry the patch and the label that the attacker wants."""

    def __init__(self, shared: Adapting) -> None:
        self.shared = shared

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        attack = self.shared.attack
        wanted = attack.relabel(y, self.shared.classes)
        hit = (wanted != y).nonzero().flatten()[: round(attack.rate * len(y))]
        return x.index_copy(0, hit, self.shared.stamp(x[hit])), y.index_copy(0, hit, wanted[hit])
