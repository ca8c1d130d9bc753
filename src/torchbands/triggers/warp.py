"""Warping: pixels are moved by a smooth field that its seed gives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.method import method
from torchbands.core.seeding import RowRng, generator
from torchbands.core.trigger import Trigger


@method("warp", paper="Nguyen and Tran, ICLR 2021, arXiv:2102.10369")
class Warp(Trigger):
    """WaNet's elastic warp of images (N, C, H, W): a k x k field of random shifts, upsampled bicubically.

    The mean shift is about s / 2 pixels along each axis.
    """

    seed: int = 0
    """Seed of the warping field."""
    k: int = 4
    """Side of the control grid."""
    s: float = 0.5
    """Strength of the warp."""
    grid_rescale: float = 1.0
    """Factor on the sampling grid; below 1 it keeps samples inside the image."""
    noise: float = 0.0
    """Amplitude of an extra random field drawn per row and pixel (1 in the paper's noise mode, 0 in its attack
    mode)."""

    def grid(self, height: int, width: int) -> Tensor:
        """(1, H, W, 2) sampling points in [-1, 1], x first."""
        field = torch.rand(1, 2, self.k, self.k, generator=generator("warp", self.seed, self.k)) * 2 - 1
        field = field / field.abs().mean()
        smooth = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        still = torch.stack((x, y), 2)[None]
        return ((still + self.s * smooth / torch.tensor([width, height])) * self.grid_rescale).clamp(-1, 1)

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        height, width = batch.shape[-2:]
        grid = self.grid(height, width)
        parts = []
        for at in torch.arange(len(batch)).split(1024):
            here = grid.expand(len(at), -1, -1, -1)
            if self.noise:
                drawn = RowRng(rng.seed, rng.rows[at.to(rng.rows.device)]).uniform(height, width, 2) * 2 - 1
                here = (here + self.noise * drawn.cpu() / torch.tensor([width, height])).clamp(-1, 1)
            parts.append(F.grid_sample(batch[at.to(batch.device)], here.to(batch), align_corners=True))
        return torch.cat(parts).clamp_(0, 1) if parts else batch.clone()
