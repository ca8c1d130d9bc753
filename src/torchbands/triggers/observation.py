"""Triggers on observations: float32 (N, ...), any shape. Dimensions are numbered as in the flattened observation."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


@method("set-dims", paper="Kiourti et al., DAC 2020, arXiv:1903.06638")
class SetDims(Trigger):
    """Sets chosen dimensions of the observation to chosen values."""

    dims: tuple[int, ...] = (0,)
    """Positions in the flattened observation; negative ones count from the end."""
    values: tuple[float, ...] = (1.0,)
    """One value per position."""

    def __post_init__(self) -> None:
        if len(self.dims) != len(self.values):
            raise InputError(f"set-dims takes one value per dimension, got {len(self.dims)} and {len(self.values)}")

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        out = batch.clone()
        flat = out.view(len(out), -1)
        if any(not -flat.shape[1] <= d < flat.shape[1] for d in self.dims):
            raise InputError(f"set-dims writes dimensions {self.dims} of an observation with {flat.shape[1]}")
        flat[:, list(self.dims)] = torch.tensor(self.values, dtype=batch.dtype, device=batch.device)
        return out


@method("add-delta")
class AddDelta(Trigger):
    """Adds a learned offset `weights["delta"]`, of one observation's shape, to every observation."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        return batch + self.weights["delta"].to(batch)
