"""What trigger inversion shares: freezing a network while inputs are searched, and Neural Cleanse's cost schedule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the parameters while only inputs are searched: a third of the backward pass is saved."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class Rules:
    """Wang et al.'s constants: when the weight on a trigger's size starts, grows, shrinks, and when to stop."""

    initial: float
    factor: float
    threshold: float
    patience: int
    stop_patience: int
    stop_ratio: float


class CostSchedule:
    """One size weight per class, each on its own schedule.

    A weight is 0 until the trigger has succeeded `patience` epochs in a row, then starts at `initial`; it is multiplied
    by `factor` after as many successes and divided by factor ** 1.5 after as many failures. A class is done when its
    weight has gone both ways and its smallest successful trigger has not shrunk for `stop_patience` epochs.
    """

    def __init__(self, rules: Rules, classes: int, device: torch.device) -> None:
        self.rules = rules

        def zeros(dtype: torch.dtype) -> Tensor:
            return torch.zeros(classes, dtype=dtype, device=device)

        self.cost = zeros(torch.float32)
        self.best = torch.full_like(self.cost, torch.inf)
        self.done = zeros(torch.bool)
        self._last = self.best.clone()
        self._wins, self._losses, self._waited = (zeros(torch.int64) for _ in range(3))
        self._raised, self._lowered = zeros(torch.bool), zeros(torch.bool)

    def step(self, success: Tensor, size: Tensor, active: Tensor) -> Tensor:
        """After an epoch: (K,) success rates and sizes, (K,) bool still searched -> (K,) bool new smallest triggers."""
        rules = self.rules
        good = success >= rules.threshold
        better = active & good & (size < self.best)
        self.best = torch.where(better, size, self.best)
        stuck = self.best.isfinite() & (self.best >= rules.stop_ratio * self._last)
        self._waited = torch.where(stuck, self._waited + 1, 0)
        self._last = torch.minimum(self._last, self.best)

        self._wins = torch.where(good, self._wins + 1, 0)
        self._losses = torch.where(good, 0, self._losses + 1)
        up, down, idle = self._wins >= rules.patience, self._losses >= rules.patience, self.cost == 0
        self.cost = torch.where(
            up,
            torch.where(idle, rules.initial, self.cost * rules.factor),
            torch.where(down, self.cost / rules.factor**1.5, self.cost),
        )
        self._raised |= up & ~idle
        self._lowered |= down & ~idle
        self._wins, self._losses = torch.where(up, 0, self._wins), torch.where(down, 0, self._losses)
        self.done |= active & self._raised & self._lowered & (self._waited >= rules.stop_patience)
        return better
