"""Images that lie encoded in a column of a Parquet or Arrow file, as Hugging Face datasets keep them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.datasets.cells import labelled
from torchbands.datasets.columns import not_read
from torchbands.datasets.folder import read_scaled
from torchbands.datasets.frames import read_frame
from torchbands.modalities.image import Image

from .image_files import common, head
from .rows import MOST_CLASSES, Rows

#: Columns that are labels by their name.
LABELS = ("label", "labels", "class", "target", "y", "fine_label")


def read_image_frame(
    path: Path, files: Sequence[Path], size: int | None, channels: int | None, label: str | None
) -> Rows | None:
    """The images of such files with their labels, scaled to squares; None where no column holds images.

    Rows whose image cannot be decoded are left out and told. Raises InputError where nothing is left, where the images
    are only named by their paths, or where no column of labels is found.
    """
    frame = read_frame(files)
    if frame.images is None:
        return None
    lower = {name.lower(): name for name in frame.columns}
    column = label or next((lower[name] for name in LABELS if name in lower), None)
    if column not in frame.columns:
        raise InputError(
            f"{path} has no column of labels {label or 'by a usual name'}",
            hint=f"columns: {', '.join(frame.columns)}; name it with --label-column",
        )
    assert column is not None
    coded = [_bytes(value) for value in frame.columns[frame.images]]
    if not any(coded):
        raise InputError(
            f"{path} names its images by path and does not hold them",
            hint="save it with the images inside, or name a folder of class folders",
        )
    names, kept, numbers, said = labelled(
        [_label(v, frame.classes.get(column, ())) for v in frame.columns[column]],
        path,
        MOST_CLASSES,
        frame.classes.get(column, ()),
    )
    unread = not_read(frame.columns, (frame.images, column))
    notes, refused = [f"images are column {frame.images!r}, labels {column!r}", *unread, *said], []
    seen: dict[int, tuple[int, int]] = {}
    for row in kept:
        found = head(coded[row]) if coded[row] else "no image"
        if isinstance(found, str):
            refused.append((str(row), found))
        else:
            seen[row] = found
    if not seen:
        raise InputError(f"{path} holds no image that could be read: row {refused[0][0]} ({refused[0][1]})")
    size, channels = common(seen, size, channels, notes)
    rows, labels, images = [], [], []
    for row, number in zip(kept, numbers):
        if row not in seen:
            continue
        try:
            images.append(read_scaled(coded[row], size, channels, name=f"row {row}"))
        except InputError as error:
            refused.append((str(row), error.message[:200]))
            continue
        rows.append(str(row))
        labels.append(number)
    if not images:
        raise InputError(f"{path} holds no image that could be read: row {refused[0][0]} ({refused[0][1]})")
    notes.append(f"images are read as squares of {size} pixels with {channels} channel{'s' if channels > 1 else ''}")
    data = Data(Pixels(torch.from_numpy(np.stack(images))), torch.tensor(labels))
    image = Image(channels=channels, size=size)
    return Rows(data, image, names, path.name, tuple(rows), tuple(refused), tuple(notes))


def _bytes(value: Any) -> bytes:
    """An encoded image, as itself or as {"bytes": ..., "path": ...}; empty where there is none."""
    held = value.get("bytes") if isinstance(value, dict) else value
    return bytes(held) if isinstance(held, (bytes, bytearray)) else b""


def _label(value: Any, names: Sequence[str]) -> str:
    if value is None or (isinstance(value, int) and value == -1):
        return ""
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else str(value)
