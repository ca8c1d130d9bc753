"""Images of a folder that a metadata file beside them names and labels, as Hugging Face's imagefolder has them."""

from __future__ import annotations

from pathlib import Path

import torch

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.datasets.cells import labelled
from torchbands.datasets.columns import not_read
from torchbands.datasets.splits import JUDGE, LEARN, METADATA
from torchbands.datasets.text_file import LABELS, columns_of
from torchbands.modalities.image import Image

from .image_files import Refused, inside, read_files, shown
from .rows import MOST_CLASSES, Rows

FILES = ("file_name", "filename", "file", "image", "path")


def metadata_of(folder: Path) -> Path | None:
    """The file that lists a folder's images, where it has one."""
    return next((path for name in METADATA if (path := folder / name).is_file()), None)


def read_listed(
    top: Path, listing: Path, size: int | None, channels: int | None, split: str, label: str | None, notes: list[str]
) -> Rows:
    """The images that `listing` names, with the labels that it gives.

    Left out and told: rows without a label, files that are not there, lead out of the folder or cannot be read. Where
    every file lies in the folder of a part (train/1.png, test/2.png), those of one part are read.

    Raises InputError where the file has no such columns, or nothing is left.
    """
    columns, classes, said = columns_of(listing)
    lower = {name.lower(): name for name in columns}
    files = next((lower[name] for name in FILES if name in lower), None)
    column = label or next((lower[name] for name in LABELS if name in lower), None)
    for what, name, usual in (("of file names", files, FILES), ("of labels", column, LABELS)):
        if name not in columns:
            raise InputError(
                f"{listing} has no column {what}: {name or ', '.join(usual[:4])}",
                hint=f"columns: {', '.join(columns)}; name that of the labels with --label-column",
            )
    assert files is not None and column is not None
    notes += [f"images are those of {listing.name}, labels are its column {column!r}", *said]
    notes += not_read(columns, (files, column))
    names, kept, numbers, told = labelled(columns[column], listing, MOST_CLASSES, classes.get(column, ()))
    notes += told
    number_of = {columns[files][row]: number for row, number in zip(kept, numbers)}
    wanted = _of_part(list(number_of), split, notes)
    refused: Refused = []
    found = {path: name for name in wanted if (path := _there(top, name, refused)) is not None}
    ids, pixels = read_files(list(found), top, size, channels, refused, notes)
    labels = torch.tensor([number_of[found[top / name]] for name in ids])
    image = Image(channels=pixels.shape[1], size=pixels.shape[2])
    data = Data(Pixels(pixels), labels)
    return Rows(data, image, names, top.name or str(top), tuple(ids), tuple(refused), tuple(notes))


def _of_part(names: list[str], split: str, notes: list[str]) -> list[str]:
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.split("/", 1)[0].lower() if "/" in name else "", []).append(name)
    if len(parts) < 2 or not set(parts) <= {*LEARN, *JUDGE}:
        return names
    order = (*JUDGE, *LEARN) if split == "test" else (*LEARN, *JUDGE)
    part = next(name for name in order if name in parts)
    notes.append(f"rows are those of {part}/; not read: {', '.join(sorted(set(parts) - {part}))}")
    return parts[part]


def _there(top: Path, name: str, refused: Refused) -> Path | None:
    """A listed file, where it lies in the folder."""
    path = top / name
    if not name.isprintable() or Path(name).is_absolute() or ".." in Path(name).parts:
        refused.append((shown(path, top) if path.is_relative_to(top) else ascii(name), "it leads out of the folder"))
        return None
    if not path.is_file():
        refused.append((shown(path, top), "it is listed and not there"))
        return None
    return path if inside(path, top, refused) else None
