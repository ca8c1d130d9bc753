"""Gaussian noise that a server adds: drawn by its seed and the round, so that a resumed training draws the same."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.seeding import generator


class Noise:
    """One server's noise, and how many rounds it was drawn for."""

    def __init__(self, name: str, seed: int, sigma: float) -> None:
        self.name, self.seed, self.sigma, self.rounds = name, seed, sigma, 0

    def like(self, step: Tensor, sigma: float | None = None) -> Tensor:
        """Noise of a step's shape, of the server's standard deviation or another."""
        rng = generator(self.name, self.seed, self.rounds)
        self.rounds += 1
        size = self.sigma if sigma is None else sigma
        return size * torch.randn(step.shape, generator=rng, dtype=step.dtype).to(step.device)
