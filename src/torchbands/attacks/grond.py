"""Grond: a universal adversarial pattern on the target class, and pruning while it trains hides it in the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.attacks.images import image_shape
from torchbands.attacks.surrogate import surrogate, universal
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, Hook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.core.task import Task
from torchbands.measures.lipschitz import channel_lipschitz, z_scores
from torchbands.triggers.universal import AddedPattern


@method("grond", paper="Xu et al., CCS 2025, arXiv:2501.05928", version=2)
class Grond(Attack):
    """Adds a bounded universal adversarial pattern (UPGD) to rows of the target class.

    Labels stay. After every epoch of the victim's training, units whose channel-Lipschitz bound lies more than
    `prune` standard deviations above their layer's mean get the mean gain and shift of the layer (adversarial backdoor
    injection, as in the authors' code), so that no conspicuous unit is left for defenses that read weights.

    Threat model: the attacker trains and hands over the model. The poisoned data set exists too: a defender who filters
    it, or trains on it himself, meets the data part of the attack alone.

    Deviations from the paper: the surrogate has the victim's own recipe and another seed; UPGD takes `steps` steps of
    one batch each; bounds are those of the channel-lipschitz repair, which also cover networks without BatchNorm (such
    a unit gets the mean weights of its layer), and in layers of fewer than 11 units there is nothing to prune. The
    paper trains for 200 epochs on
    colour images: a few epochs on grey 28x28 images need a larger `eps`.

    Cost: one clean training per (task, seed), kept in the process, `steps` gradients of a batch, one bound per epoch.
    """

    clean_label: ClassVar[bool] = True

    rate: float = 0.5
    """Poisoned rows as a fraction of the target class."""
    eps: float = 8 / 255
    """Perturbation bound (L-infinity) per pixel."""
    steps: int = 100
    """Steps of UPGD."""
    step: float = 1 / 255
    """Step size of UPGD."""
    batch: int = 256
    """Batch size of UPGD."""
    prune: float = 3.0
    """Reset a channel whose Lipschitz bound exceeds its layer's mean by this many standard deviations; 0: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.eps <= 1 or self.prune < 0:
            raise InputError(f"grond: eps is in (0, 1] and prune at least 0, got eps={self.eps}, prune={self.prune}")

    def test_trigger(self, task: Task, seed: int) -> AddedPattern:
        image_shape(self, task)
        return AddedPattern(weights={"delta": _pattern(self, task, seed)})

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (Pruning(self.prune),) if self.prune else ()


@lru_cache(maxsize=8)
def _pattern(attack: Grond, task: Task, seed: int) -> Tensor:
    data, rng = task.load("train", seed), generator("upgd", attack.spec(), seed)
    owned = task.owned(data)
    others = data[owned[data.y[owned] != attack.target]]
    model = surrogate(task, seed)
    return universal(
        model, others, attack.target, eps=attack.eps, steps=attack.steps, step=attack.step, batch=attack.batch, rng=rng
    )


class Pruning(BatchHook):
    """Evens out units with an outlying channel-Lipschitz bound whenever as many rows were trained on as there are."""

    def __init__(self, u: float) -> None:
        self.u, self.rows, self.seen = u, 0, 0

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.rows, self.seen = len(data), 0

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor | None:
        self.seen += len(y)
        return None

    def after_step(self, model: Model) -> None:
        if self.seen >= self.rows:
            self.seen -= self.rows
            prune(model, self.u)


@torch.no_grad()
def prune(model: Model, u: float) -> int:
    """Give every unit whose bound is more than u deviations above its layer's mean the layer's mean weights, in place.

    Returns how many there were. The mean is over all of the layer's units.
    """
    training = model.module.training
    model.module.eval()  # the bounds send noise through the network: it must not reach the running statistics
    try:
        gone = 0
        for layer, bound in channel_lipschitz(model).items():
            out = z_scores(bound) > u
            gone += int(out.sum())
            target = model.module.get_submodule(layer)
            for parameter in (getattr(target, "weight", None), getattr(target, "bias", None)):
                if isinstance(parameter, Tensor):
                    parameter[out.to(parameter.device)] = parameter.mean(0)
        return gone
    finally:
        model.module.train(training)
