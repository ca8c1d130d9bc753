"""Small triggers that a scanner would find, searched during training so that the model learns to ignore them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.model import Model, fast_dtype

#: Size of a signed step on masks and patterns, and of a normalised step as a share of the radius.
STEP, PACE = 0.1, 0.5


class Probes:
    """Sparse triggers, one per source class and one for all, and one bounded perturbation for all.

    Attributes:
        masks: (K + 1, 1, H, W) and patterns: (K + 1, C, H, W), in [0, 1]; number K serves every class.
        delta: (C, H, W), of root mean square at most `rms`.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, pixels: float, rms: float, rng: torch.Generator
    ) -> None:
        channels, height, width = shape
        self.classes, self.budget, self.rms = classes, pixels * height * width, rms
        self.masks = torch.full((classes + 1, 1, height, width), min(1.0, pixels))
        self.patterns = torch.rand(classes + 1, channels, height, width, generator=rng)
        self.delta = torch.randn(channels, height, width, generator=rng) * rms * 0.1

    def to(self, device: torch.device) -> Probes:
        """The same probes, moved to a device."""
        self.masks, self.patterns, self.delta = (t.to(device) for t in (self.masks, self.patterns, self.delta))
        return self

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, C, H, W) of classes y (N,), each with one probe: its class's, the common one, or the perturbation.

        Rows take the three kinds in turn.
        """
        return self._write(x, y, self.masks, self.patterns, self.delta)

    def _write(self, x: Tensor, y: Tensor, masks: Tensor, patterns: Tensor, delta: Tensor) -> Tensor:
        kind = torch.arange(len(x), device=x.device) % 3
        which = torch.where(kind == 0, y, self.classes)
        mask = masks[which]
        sparse = (1 - mask) * x + mask * patterns[which]
        return torch.where((kind == 2)[:, None, None, None], (x + delta).clamp(0, 1), sparse)

    def search(self, model: Model, x: Tensor, y: Tensor, wanted: Tensor, steps: int, own: Tensor) -> None:
        """A few steps that make every probe better at turning images x of classes y into `wanted` (N,).

        The perturbation never gains a part along `own` (C, H, W): that direction belongs to the attacker's trigger.
        The model is used in evaluation mode and only its probes change.
        """
        training = model.module.training
        model.module.eval()
        fast = fast_dtype(x.device) is torch.bfloat16
        try:
            for _ in range(steps):
                held = [t.detach().requires_grad_() for t in (self.masks, self.patterns, self.delta)]
                with torch.enable_grad(), torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=fast):
                    logits = model.run(model.encode(self._write(x, y, *held))).float()
                    slopes = torch.autograd.grad(F.cross_entropy(logits, wanted), held)
                self._move(slopes[0], slopes[1], slopes[2], own)
        finally:
            model.module.train(training)

    @torch.no_grad()
    def _move(self, mask: Tensor, pattern: Tensor, delta: Tensor, own: Tensor) -> None:
        masks = (self.masks - STEP * mask.sign()).clamp(0, 1)
        over = masks.flatten(1).sum(1).div(self.budget).clamp_min(1)
        self.masks = masks / over[:, None, None, None]
        self.patterns = (self.patterns - STEP * pattern.sign()).clamp(0, 1)
        size = delta.numel() ** 0.5
        moved = self.delta - PACE * self.rms * size * delta / delta.norm().clamp_min(1e-12)
        moved = moved - (moved * own).sum() * own / own.square().sum().clamp_min(1e-12)
        self.delta = moved / (moved.norm() / (self.rms * size)).clamp_min(1)
