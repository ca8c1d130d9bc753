"""Triggers on tables: float32 (N, F). Which fields an attacker can set is the modality's to say."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


@method("set-fields", paper="Severi et al., USENIX Security 2021, arXiv:2003.01031")
class SetFields(Trigger):
    """Sets chosen fields to chosen values, in the table's own units."""

    fields: tuple[int, ...] = (0,)
    """Column indices."""
    values: tuple[float, ...] = (1.0,)
    """One value per column index."""

    def __post_init__(self) -> None:
        if len(self.fields) != len(self.values):
            raise InputError(f"set-fields takes one value per field, got {len(self.fields)} and {len(self.values)}")

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        if self.fields and max(self.fields) >= batch.shape[1]:
            raise InputError(f"set-fields writes field {max(self.fields)} of a table with {batch.shape[1]} fields")
        out = batch.clone()
        out[:, list(self.fields)] = torch.tensor(self.values, dtype=batch.dtype, device=batch.device)
        return out
