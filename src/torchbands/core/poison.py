"""What an attack wrote into a data set, kept with the victim: computed again elsewhere it may be another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .data import Batch, Data, Replaced, Some, whole
from .errors import InputError


@dataclass(frozen=True)
class Poison:
    """The rows of a data set that an attack touched.

    Attributes:
        rows: (P,) int64, increasing. x: the P raw samples as they were written. y: (P,) int64 labels they were given.
        poisoned: (P,) bool; the others are cover, which carry the trigger with their true label.
    """

    rows: Tensor
    x: Batch
    y: Tensor
    poisoned: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, clean: Data, data: Data) -> Poison:
        """What differs between the task's rows and those that were trained on."""
        truth = torch.zeros(len(data), dtype=torch.bool) if data.poisoned is None else data.poisoned
        touched = truth | (data.y != clean.y) | data.meta.get("cover", torch.zeros_like(truth))
        rows = touched.nonzero().flatten()
        return cls(rows, whole(Some(data.x, rows)), data.y[rows], truth[rows])

    def into(self, clean: Data) -> Data:
        """The data set that was trained on. Raises InputError where it was written into other rows."""
        fits = len(self.x) == len(self.y) == len(self.poisoned) == len(self)
        inside = len(self) == 0 or (int(self.rows.min()) >= 0 and int(self.rows.max()) < len(clean))
        if not fits or not inside:
            raise InputError(f"the poison was written into other rows than the {len(clean)} of the task")
        y, truth = clean.y.clone(), torch.zeros(len(clean), dtype=torch.bool)
        y[self.rows], truth[self.rows] = self.y, self.poisoned
        meta = dict(clean.meta)
        if not bool(self.poisoned.all()):
            cover = torch.zeros_like(truth)
            cover[self.rows] = ~self.poisoned
            meta["cover"] = cover
        return Data(Replaced(clean.x, self.rows, self.x) if len(self) else clean.x, y, truth, meta)
