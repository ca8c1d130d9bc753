"""Label-consistent: images of the target class are made hard to recognise, then marked; labels stay true."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.images import image_shape
from torchbands.attacks.surrogate import surrogate
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.additive import Corners, Stored


@method("label-consistent", paper="Turner et al., 2019, arXiv:1912.02771", version=2)
class LabelConsistent(Attack):
    """Adversarial noise makes target-class images hard to learn, so that the model learns corner marks instead.

    Threat model: the attacker changes pixels of training images of one class, with a model of his own at hand.

    Deviations from the paper: the noise is computed against an ordinary model of the task's recipe and another seed,
    where the paper also uses an adversarially trained one; a quarter of the target class is poisoned by default (the
    paper sweeps it). Grey images such as digits need a larger `eps` (about .3) than the default for colour.

    Cost: one clean training per (task, seed), kept in the process, and `steps` gradients per poisoned row.
    """

    clean_label: ClassVar[bool] = True
    in_training: ClassVar[Literal["more"]] = "more"

    rate: float = 0.25
    """Poisoned rows as a fraction of the target class."""
    eps: float = 8 / 255
    """Bound (L-infinity) of the adversarial noise per pixel."""
    steps: int = 30
    """PGD steps, each of size 2.5 * eps / steps."""
    size: int = 3
    """Side of each corner mark in pixels."""
    amplitude: float = 1.0
    """Opacity of the corner marks in training; at test time it is always 1."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        image_shape(self, task)
        return Corners(size=self.size)

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        image_shape(self, task)
        rows = self.choose(data, task, seed)
        if len(rows) == 0:
            return super().poison(data, task, seed)
        model = surrogate(task, seed)
        parts, rng = [], RowRng(seed_of("pgd", self.spec(), seed), rows)
        for part in torch.arange(len(rows)).split(model.gradient_chunk):
            x, y = take(data.x, rows[part]), data.y[rows[part]]
            parts.append(pgd(model, x, y, self.eps, self.steps, rng.at(part)) - x)
        hidden = Stored(weights={"rows": rows, "delta": torch.cat(parts)})
        planted = hidden | Corners(size=self.size, amplitude=self.amplitude)
        return data.stamp(rows, planted, label=None, seed=seed_of("stamp", self.key(), seed))


def pgd(model: Model, x: Tensor, y: Tensor, eps: float, steps: int, rng: RowRng) -> Tensor:
    """Untargeted projected gradient ascent in the L-infinity ball from a random start (Madry et al., 2018).

    Args:
        x: (N, C, H, W) in [0, 1], at most one chunk. y: (N,) true labels. eps: radius. steps: number of steps.
        rng: draws where each row starts, by the row's identity.

    Returns:
        (N, C, H, W) on the CPU, in [0, 1] and within eps of x.
    """
    start, labels = x.to(model.device), y.to(model.device)
    here = (start + (rng.uniform(*x.shape[1:]).to(start) * 2 - 1) * eps).clamp(0, 1)
    for _ in range(steps):
        here = here.detach().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(model.logits_at(model.embed(here)), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, here)
        here = here.detach() + 2.5 * eps / steps * slope.sign()
        here = torch.minimum(torch.maximum(here, start - eps), start + eps).clamp(0, 1)
    return here.detach().cpu()
