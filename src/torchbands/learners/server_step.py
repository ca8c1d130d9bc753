"""What the server does with the joined update: the step itself, or an optimiser that takes it for a gradient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ServerOptimizer = Literal["sgd", "momentum", "adam"]


class ServerStep:
    """FedOpt (Reddi et al., ICLR 2021, arXiv:2003.00295): the joined update stands for the negative gradient.

    Args:
        lr: factor on the step. betas: of the momentum, and of Adam's second moment. tau: Adam's least denominator.
    """

    def __init__(self, kind: ServerOptimizer, lr: float, betas: tuple[float, float], tau: float) -> None:
        self.kind, self.lr, self.betas, self.tau = kind, lr, betas, tau
        self.first = self.second = torch.zeros(0)

    def __call__(self, update: Tensor) -> Tensor:
        """(D,) joined update -> (D,) change of the global parameters."""
        if self.kind == "sgd":
            return self.lr * update
        if len(self.first) != len(update):
            self.first, self.second = torch.zeros_like(update), torch.full_like(update, self.tau**2)
        if self.kind == "momentum":
            self.first = self.betas[0] * self.first + update
            return self.lr * self.first
        self.first = self.betas[0] * self.first + (1 - self.betas[0]) * update
        self.second = self.betas[1] * self.second + (1 - self.betas[1]) * update.square()
        return self.lr * self.first / (self.second.sqrt() + self.tau)
