"""Adaptive-Blend: partial triggers in training and correctly labelled cover rows, so that poison does not cluster."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from torchbands.attacks.images import image_shape
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.method import method
from torchbands.core.seeding import generator, seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.blend import BlendPieces


@method("adaptive-blend", paper="Qi et al., ICLR 2023, openreview:_wSHsgrVali")
class AdaptiveBlend(Attack):
    """Blends a noise pattern cut into pieces: training rows carry a random half of them, test rows all.

    Cover rows carry the same partial trigger with their true labels and any class.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the pattern is noise drawn by seed rather than a picture; rows already of the target
    class are not counted as poison.

    Cost: one interpolation per poisoned or cover row.
    """

    in_training: ClassVar[Literal["part"]] = "part"

    rate: float = 0.003
    """Poisoned rows as a fraction of the training data."""
    cover: float = 0.003
    """Cover rows (trigger, true label) as a fraction of the training data."""
    alpha: float = 0.15
    """Opacity of the pattern in training."""
    test_alpha: float = 0.2
    """Opacity of the pattern at test time."""
    pieces: int = 16
    """Number of pieces of the pattern; a square number."""
    masked: float = 0.5
    """Fraction of the pieces left out in each training row."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        image_shape(self, task)
        return BlendPieces(alpha=self.test_alpha, seed=seed, pieces=self.pieces)

    def train_trigger(self, task: Task, seed: int) -> Trigger:
        image_shape(self, task)
        return BlendPieces(alpha=self.alpha, seed=seed, pieces=self.pieces, keep=1 - self.masked)

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        out = super().poison(data, task, seed)
        owned = task.owned(data)
        used = torch.zeros(len(data), dtype=torch.bool) if out.poisoned is None else out.poisoned.clone()
        if "cover" in out.meta:
            used |= out.meta["cover"]
        free = owned[~used[owned]]
        order = torch.randperm(len(free), generator=generator("adaptive-cover", self.spec(), seed))
        rows = free[order[: round(self.cover * len(owned))]].sort().values
        if len(rows) == 0:
            return out
        identity = seed_of("adaptive-cover", self.key(), seed)
        return out.stamp(rows, self.train_trigger(task, seed), label=None, seed=identity, poisoned=False)
