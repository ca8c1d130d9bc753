"""Triggers added to images: a sinusoid, marks in all corners, and a stored perturbation per row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


@method("sinusoid", paper="Barni et al., ICIP 2019, arXiv:1902.11237")
class Sinusoid(Trigger):
    """Adds delta * sin(2 pi f j / W) to every column j of images in [0, 1] and clips."""

    delta: float = 20 / 255
    """Amplitude, as a fraction of the pixel range."""
    frequency: int = 6
    """Periods across the image."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        width = batch.shape[-1]
        wave = torch.sin(2 * math.pi * self.frequency * torch.arange(width) / width)
        return (batch + self.delta * wave.to(batch)).clamp(0, 1)


@method("corners", paper="Turner et al., 2019, arXiv:1912.02771")
class Corners(Trigger):
    """Small black-and-white checkerboards in the four corners of images in [0, 1]."""

    size: int = 3
    """Side of each mark in pixels."""
    amplitude: float = 1.0
    """1 replaces pixels by black and white; smaller values move them only part of the way."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        i = torch.arange(self.size)
        mark = ((i[:, None] + i[None]) % 2 == 0).to(batch)
        out = batch.clone()
        ends = (slice(0, self.size), slice(-self.size, None))
        for rows in ends:
            for columns in ends:
                corner = out[..., rows, columns]
                out[..., rows, columns] = torch.lerp(corner, mark.expand_as(corner), self.amplitude)
        return out


@method("stored")
class Stored(Trigger):
    """Adds a perturbation computed beforehand for each row, looked up by the row's identity; clips to [0, 1].

    `weights`: "rows" (P,) int64 ascending, "delta" (P, C, H, W) float32.
    """

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        if "rows" not in self.weights:
            raise InputError("a stored trigger needs weights 'rows' and 'delta'")
        known, rows = self.weights["rows"], rng.rows.cpu()
        at = torch.searchsorted(known, rows).clamp_max(len(known) - 1)
        if not torch.equal(known[at], rows):
            raise InputError("a stored trigger was asked to change rows that it holds no perturbation for")
        return (batch + self.weights["delta"][at].to(batch)).clamp(0, 1)
