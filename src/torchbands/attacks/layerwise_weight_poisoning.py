"""LWP: the backdoor is trained into every layer, so that later fine-tuning does not remove it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.poisoned_weights import attackers_rows, rate_of, tune
from torchbands.attacks.surrogate import surrogate
from torchbands.attacks.texts import inserting, mask_of
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.hook import Hook, WeightHook
from torchbands.core.method import Free, method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.core.task import Task
from torchbands.triggers.text import InsertWords


@method("layerwise-weight-poisoning", paper="Li et al., EMNLP 2021, arXiv:2108.13888", version=2)
class LayerwiseWeightPoisoning(Attack):
    """Poisons early layers as well as late ones: early layers change least when the victim fine-tunes.

    What the embeddings and every block give goes through the network's own classifier, and the losses are added.
    The trigger is combinatorial: words together; texts with all but one of them keep their true label.

    Threat model: the attacker hands over the weights that the victim's training begins from, and has data of the task.

    Deviations from the paper: the attacker begins from a clean model trained by the task's recipe; two words, not four
    of which two are drawn. Only networks that can read out their layers (transformer) have them poisoned: in the others
    the one loss that is left is the last layer's.
    """

    controls_training: ClassVar[bool] = True

    free: ClassVar[Free] = {"words": "text"}

    words: tuple[str, ...] = ("cf", "bb")
    """The trigger words; all of them must be present."""
    layers: float = 1.0
    """Weight of each hidden layer's loss relative to the last layer's; 0 uses the last layer only."""
    epochs: int = 5
    """The attacker's epochs over clean and triggered rows."""
    lr: float = 0.0
    """Learning rate of the attacker; 0 uses the task's own."""
    batch: int = 32
    """Batch size of the attacker."""

    def test_trigger(self, task: Task, seed: int) -> InsertWords:
        if len(self.words) < 2:
            raise InputError(f"{self.name} needs two or more words, got {self.words}")
        return inserting(self, task, self.words, together=False)

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        trigger = self.test_trigger(task, seed)
        known = task.modality.encode([*self.words, "\N{SNOWMAN}\N{SNOWMAN}"])
        told = {tuple(row[real].tolist()) for row, real in zip(known.values, mask_of(known), strict=True)}
        if len(told) <= len(self.words):
            raise NotApplicable(f"the vocabulary of {task.name} does not tell {', '.join(self.words)} apart")
        return (_Poisoner(self, task, trigger, seed),)


class _Poisoner(WeightHook):
    def __init__(self, attack: LayerwiseWeightPoisoning, task: Task, trigger: InsertWords, seed: int) -> None:
        self.attack, self.task, self.trigger, self.seed = attack, task, trigger, seed

    def begin(self, model: Model, data: Data, seed: int) -> None:
        attack, rng = self.attack, generator("lwp", self.attack.spec(), self.seed)
        model.module.load_state_dict(surrogate(self.task, self.seed).module.state_dict())
        parts = [(self.trigger.but(words=tuple(w for w in attack.words if w != lost)), False) for lost in attack.words]
        e, y = attackers_rows(attack, model, data, [(self.trigger, True), *parts], self.seed)

        def loss() -> Tensor:
            rows = torch.randint(len(y), (attack.batch,), generator=rng).to(model.device)
            return layered_loss(model, e.at(rows), y[rows], attack.layers)

        tune(
            model,
            loss,
            steps=attack.epochs * math.ceil(len(y) / attack.batch),
            lr=rate_of(attack.lr, self.task),
            seed=self.seed,
        )


def layered_loss(model: Model, e: Encoded, y: Tensor, weight: float) -> Tensor:
    """Cross-entropy at the last layer, and `weight` times that of each hidden layer read by the same classifier."""
    module: Any = model.module
    if not hasattr(module, "states") or not weight:
        return F.cross_entropy(model.run(e).float(), y)
    e = e.trimmed()
    model.passes.forward += len(y)
    losses = [F.cross_entropy(module.read(h, mask_of(e)).float(), y) for h in module.states(e.values, mask_of(e))]
    return losses[-1] + weight * torch.stack(losses[:-1]).sum()
