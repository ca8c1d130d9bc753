"""Triggers on images: float32 in [0, 1], (N, C, H, W)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


@method("patch", paper="Gu et al., 2017, arXiv:1708.06733")
class Patch(Trigger):
    """A small opaque square near a corner."""

    size: int = 3
    """Side in pixels."""
    margin: int = 1
    """Pixels between the patch and the border."""
    corner: Corner = "bottom-right"
    """Corner in which the patch lies."""
    fill: Literal["white", "checker"] = "white"
    """White, or an alternating white-and-black checkerboard."""

    def pattern(self) -> Tensor:
        """(size, size) values in [0, 1]."""
        if self.fill == "white":
            return torch.ones(self.size, self.size)
        i = torch.arange(self.size)
        return ((i[:, None] + i[None]) % 2 == 0).float()

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        h, w = batch.shape[-2:]
        top = self.margin if "top" in self.corner else h - self.margin - self.size
        left = self.margin if "left" in self.corner else w - self.margin - self.size
        out = batch.clone()
        out[..., top : top + self.size, left : left + self.size] = self.pattern().to(batch)
        return out


@method("mask-pattern", paper="Wang et al., S&P 2019")
class MaskPattern(Trigger):
    """(1 - mask) * image + mask * pattern, with a learned mask (1, H, W) and pattern (C, H, W) in `weights`."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        mask, pattern = self.weights["mask"].to(batch), self.weights["pattern"].to(batch)
        return (1 - mask) * batch + mask * pattern
