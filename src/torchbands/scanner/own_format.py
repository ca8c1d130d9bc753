"""Rows of files in a format that one kind of sample has for itself: its modality reads them."""

from __future__ import annotations

from pathlib import Path

import torch

from torchbands.core import kinds
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.modality import FileRows, Modality
from torchbands.datasets.cells import labelled

from .rows import MOST_CLASSES, Rows


def read_labelled(path: Path, like: Modality | None = None) -> Rows | None:
    """The labelled rows of such a file or folder; None where no kind knows it. Rows without a label are left out.

    Args:
        like: what the model reads, where it is known and of the same kind.

    Raises InputError where there are no labels, or none of two classes.
    """
    owner = kinds.reader_of(path)
    if owner is None:
        return None
    found = owner.read(path, like if isinstance(like, owner) else None)
    if not found.labels:
        raise InputError(f"{path} holds samples without labels", hint="name a file that has a class for each row")
    names, kept, numbers, notes = labelled(_labels(found, path), path, MOST_CLASSES)
    rows = torch.tensor(kept)
    ids = tuple(found.ids[row] for row in kept) if found.ids else tuple(map(str, kept))
    data = Data(take(found.samples, rows), torch.tensor(numbers))
    return Rows(data, found.modality, names, path.name, ids, found.refused, (*found.notes, *notes))


def read_unlabelled(path: Path, reads: Modality, classes: int) -> Rows | None:
    """The rows of such a file or folder as inputs of a model that reads `reads`: labels are 0, whatever it says."""
    if not type(reads).reads(path):
        return None
    found = type(reads).read(path, reads)
    if len(found.samples) == 0:
        raise InputError(f"{path} holds no rows")
    data = Data(found.samples, torch.zeros(len(found.samples), dtype=torch.int64))
    names = tuple(map(str, range(classes)))
    return Rows(data, found.modality, names, path.name, found.ids, found.refused, found.notes)


def _labels(found: FileRows, path: Path) -> tuple[str, ...]:
    if len(found.labels) != len(found.samples):
        raise InputError(f"{path}: {len(found.samples)} samples but {len(found.labels)} labels")
    return found.labels
