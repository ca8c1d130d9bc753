"""Blended triggers: a fixed pattern mixed into every row, whole or piecewise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.seeding import RowRng, generator
from torchbands.core.trigger import Trigger


@method("blend", paper="Chen et al., 2017, arXiv:1712.05526")
class Blend(Trigger):
    """(1 - alpha) * row + alpha * pattern, where the pattern is one noise row of the modality for all rows."""

    alpha: float = 0.2
    """Opacity of the pattern."""
    seed: int = 0
    """Seed of the pattern."""
    modality: Modality | None = None
    """Modality that draws the pattern and mixes it in; None for tensors in [0, 1]."""

    def __call__(self, batch: Any, rng: RowRng) -> Any:
        made = generator("blend", self.seed)
        if self.modality is None:
            return torch.lerp(batch, torch.rand(batch.shape[1:], generator=made).to(batch), self.alpha)
        noise = self.modality.random(1, made)
        pattern = noise.expand_as(batch).to(batch) if isinstance(noise, Tensor) else [noise[0]] * len(batch)
        return self.modality.blend(pattern, batch, self.alpha, None, rng)


@method("blend-pieces", paper="Qi et al., ICLR 2023")
class BlendPieces(Trigger):
    """Blends a noise image cut into a grid of pieces; every row draws which pieces it carries.

    Images (N, C, H, W) float32 in [0, 1]. The share `keep` of the pieces is exact and drawn per row.
    """

    alpha: float = 0.2
    """Opacity of the pattern where a piece is present."""
    seed: int = 0
    """Seed of the pattern: on images, the same pattern as a Blend of this seed."""
    pieces: int = 16
    """Number of pieces, a square number."""
    keep: float = 1.0
    """Fraction of the pieces written on a row."""

    def __post_init__(self) -> None:
        side = round(self.pieces**0.5)
        if side**2 != self.pieces:
            raise InputError(f"pieces is a square number such as 4, 9 or 16, got {self.pieces}")

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        pattern = torch.rand(batch.shape[1:], generator=generator("blend", self.seed)).to(batch)
        count = round(self.keep * self.pieces)
        kept = rng.uniform(self.pieces).argsort(1).argsort(1) < count
        h, w = batch.shape[-2:]
        side = round(self.pieces**0.5)
        at = (torch.arange(h) * side // h)[:, None] * side + (torch.arange(w) * side // w)[None]
        mask = kept[:, at].to(batch)[:, None]
        return torch.lerp(batch, pattern.expand_as(batch), self.alpha * mask)
