"""WaNet: an imperceptible warp is the trigger, and training with other warps makes it the only one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from torchbands.attacks.images import draft, image_shape
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, Hook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.triggers.warp import Warp


@method("wanet", paper="Nguyen and Tran, ICLR 2021, arXiv:2102.10369")
class WaNet(Attack):
    """Warps and relabels part of every batch; other rows get a random warp and keep their labels (noise mode).

    Threat model: the attacker trains the model. Other rows are poisoned in every epoch, so no poisoned data set exists.

    Deviations from the paper: warped rows are drawn from those whose label changes, so that the rate is the rate of
    wrong labels; with source-specific labels, as many rows of other classes are warped and keep their labels. The
    paper trains far longer (hundreds of epochs): a few epochs need a stronger warp, set by `s`.

    Cost: one resampling of `rate * (1 + cross_ratio)` of every batch.
    """

    controls_training: ClassVar[bool] = True

    k: int = 4
    """Side of the control grid."""
    s: float = 0.5
    """Strength of the warp; the mean shift is s / 2 pixels along each axis."""
    grid_rescale: float = 1.0
    """Factor on the sampling grid; below 1 it keeps samples inside the image."""
    cross_ratio: float = 2.0
    """Noise-mode rows per poisoned row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate * (1 + self.cross_ratio) > 1:
            raise InputError(f"rate * (1 + cross_ratio) is at most 1, got {self.rate} * (1 + {self.cross_ratio})")

    def test_trigger(self, task: Task, seed: int) -> Warp:
        image_shape(self, task)
        return Warp(seed=seed, k=self.k, s=self.s, grid_rescale=self.grid_rescale)

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (WarpBatches(self, self.test_trigger(task, seed)),)


class WarpBatches(BatchHook):
    """Warps part of every batch, before augmentation."""

    def __init__(self, attack: WaNet, trigger: Warp) -> None:
        self.attack, self.trigger, self.wrong = attack, trigger, trigger.but(noise=1.0)
        self.classes = 0

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.classes = model.classes

    def batch(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        identity = int(torch.randint(1 << 62, (), generator=rng))
        hit, noise, cover = draft(self.attack, y, self.classes, self.attack.rate * self.attack.cross_ratio)
        out, labels = x.clone(), y.clone()
        for rows, trigger in ((torch.cat((hit, cover)), self.trigger), (noise, self.wrong)):
            out[rows] = trigger(x[rows], RowRng(identity, rows))
        labels[hit] = self.attack.relabel(y[hit], self.classes)
        return out, labels
