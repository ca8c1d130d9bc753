"""Narcissus: a few rows of the target class carry a pattern that points to the middle of that class."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal

from torch import Tensor

from torchbands.attacks.images import image_shape
from torchbands.attacks.surrogate import surrogate, universal
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.method import method
from torchbands.core.seeding import generator
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.universal import AddedPattern


@method("narcissus", paper="Zeng et al., CCS 2023, arXiv:2204.05255")
class Narcissus(Attack):
    """Adds a universal pattern that a surrogate associates with the target class; amplified at test time.

    Threat model: the attacker changes pixels of a few training images of one class, with a model of his own at hand.

    Deviations from the paper: the surrogate is an ordinary model of the task's recipe and another seed, where the
    paper trains one on public data of other classes and then on the target class (so this attacker knows more, and
    needs no poison warm-up); the pattern is found by `steps` signed gradient steps of one batch of the target class
    each, in place of 1,000 epochs of RAdam. A few epochs need more poisoned rows than the paper's 0.05 %.

    Cost: one clean training per (task, seed), kept in the process, and `steps` gradients of a batch.
    """

    clean_label: ClassVar[bool] = True
    in_training: ClassVar[Literal["weaker"]] = "weaker"

    rate: float = 0.0005
    """Poisoned rows as a fraction of all training data (at least one row; at most the target class)."""
    eps: float = 16 / 255
    """Perturbation bound (L-infinity) per pixel in training."""
    magnify: float = 3.0
    """Magnification of the pattern at test time."""
    steps: int = 200
    """Steps of the trigger search."""
    step: float = 1 / 255
    """Step size of the trigger search."""
    batch: int = 128
    """Batch size of the trigger search."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return self.train_trigger(task, seed).but(scale=self.magnify)

    def train_trigger(self, task: Task, seed: int) -> AddedPattern:
        image_shape(self, task)
        return AddedPattern(weights={"delta": _pattern(self, task, seed)})

    def choose(self, data: Data, task: Task, seed: int, count: int | None = None) -> Tensor:
        if count is None:
            count = max(1, round(self.rate * len(task.owned(data)))) if self.rate else 0
        return super().choose(data, task, seed, count)


@lru_cache(maxsize=8)
def _pattern(attack: Narcissus, task: Task, seed: int) -> Tensor:
    data, rng = task.load("train", seed), generator("narcissus", attack.spec(), seed)
    owned = task.owned(data)
    mine = data[owned[data.y[owned] == attack.target]]
    model = surrogate(task, seed)
    return universal(
        model, mine, attack.target, eps=attack.eps, steps=attack.steps, step=attack.step, batch=attack.batch, rng=rng
    )
