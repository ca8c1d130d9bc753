"""Labelled rows, and where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchbands.core.data import Data, Pixels, take
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.core.task import Task

#: Most classes that are believed; more is a damaged or hostile file.
MOST_CLASSES = 65_536


@dataclass(frozen=True)
class Rows:
    """Labelled rows and where they come from.

    Attributes:
        data: blind rows. label: what the source is called in reports. ids: a name for each row: its path relative to
            the folder, or its number.
        refused: (name, reason) of files that were left out. notes: what was assumed while reading.
        task: the task that they belong to, where the source is one; its network and learner then fit them.
    """

    data: Data
    modality: Modality
    class_names: tuple[str, ...]
    label: str
    ids: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    task: Task | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        n = len(self.data)
        if n == 0:
            raise InputError(f"{self.label} holds no rows")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(map(str, range(n))))
        if len(self.ids) != n:
            raise InputError(f"{self.label}: {n} rows but {len(self.ids)} ids")
        low, high = int(self.data.y.min()), int(self.data.y.max())
        if low < 0 or high >= len(self.class_names):
            raise InputError(f"{self.label}: labels are 0..{len(self.class_names) - 1}, got {low}..{high}")

    def __len__(self) -> int:
        return len(self.data)

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    def sha256(self) -> str:
        """Hex digest of all samples and labels: the same rows give the same one, wherever they lie."""
        made = hashlib.sha256(self.data.y.numpy().tobytes())
        x = self.data.x.bytes if isinstance(self.data.x, Pixels) else self.data.x
        for rows in torch.arange(len(self)).split(8192):
            part = take(x, rows)
            if isinstance(part, Tensor):
                made.update(part.contiguous().cpu().numpy().tobytes())
            else:
                for row in part:
                    told = row if isinstance(row, bytes) else str(row).encode("utf-8", "replace")
                    made.update(len(told).to_bytes(8, "big") + told)
        return made.hexdigest()
