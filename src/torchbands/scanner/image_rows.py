"""A folder of class folders of images that somebody else filled: what cannot be read is left out by name."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.modalities.image import Image
from torchbands.tasks.sources.decode import IMAGE_FORMATS
from torchbands.tasks.sources.folder import SUFFIXES, read_scaled

from .rows import Rows

#: A larger image file, or one of more pixels, is refused before it is decoded.
MOST_BYTES, MOST_PIXELS = 64 << 20, 40_000_000
#: Images are not scaled to more than this unless a size is given. Deeper folders are not read.
MOST_SIDE, MOST_DEPTH = 64, 16
_LAYOUT = "expected FOLDER/CLASS/*.png (or .jpg ...), or FOLDER/train/CLASS/* and FOLDER/test/CLASS/*"

Refused = list[tuple[str, str]]


def read_folder(root: Path, size: int | None = None, channels: int | None = None, split: str = "clean") -> Rows:
    """Images of a folder of class folders, scaled to squares, with the path of each.

    Left out and told in `refused`: images that cannot be decoded, decompression bombs, links that leave the folder,
    what is no regular file, and names that cannot be printed.

    Raises InputError where nothing is left, where there are fewer than two classes, or for a wrong size or channels.
    """
    if channels not in (None, 1, 3) or (size is not None and not 1 <= size <= 1024):
        raise InputError(f"channels is {channels} and size {size}: channels is 1 or 3, size 1 to 1024")
    parted = (root / "train").is_dir() and (root / "test").is_dir()
    top = root / ("test" if split == "test" else "train") if parted else root
    refused: Refused = []
    classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
    listed = {folder.name: list(_files(folder, top, refused)) for folder in classes if _named(folder, top, refused)}
    files = [file for found in listed.values() for file in found]
    notes: list[str] = []
    if files and (size is None or channels is None):
        side, depth = _first(files)
        if size is None and side > MOST_SIDE:
            notes.append(f"images are scaled to {MOST_SIDE} pixels, from {side} of the first: give size for more")
        size, channels = size or min(side, MOST_SIDE), channels or depth
    assert not files or (size is not None and channels is not None)
    kept, images = [], []
    for file in files:
        if (reason := _unreadable(file)) is None:
            try:
                images.append(read_scaled(file, size or 0, channels or 0))
                kept.append(file.relative_to(top).as_posix())
                continue
            except Exception as error:  # a decoder may raise anything on a hostile file
                reason = _short(error)
        refused.append((file.relative_to(top).as_posix(), reason))
    if not images:
        what = "no image that could be read" if refused else "no images in class folders"
        first = f": {refused[0][0]} ({refused[0][1]})" if refused else ""
        raise InputError(f"{top} holds {what}{first}", hint=_LAYOUT)
    names = tuple(sorted({name.split("/", 1)[0] for name in kept}))
    if len(names) < 2:
        raise InputError(f"{top} holds one class only, {names[0]!r}; at least two are needed", hint=_LAYOUT)
    assert size is not None and channels is not None
    notes.append(f"images are read as squares of {size} pixels with {channels} channel{'s' if channels > 1 else ''}")
    labels = torch.tensor([names.index(name.split("/", 1)[0]) for name in kept])
    data = Data(Pixels(torch.from_numpy(np.stack(images))), labels)
    return Rows(
        data,
        Image(channels=channels, size=size),
        names,
        root.name or str(root),
        tuple(kept),
        tuple(refused),
        tuple(notes),
    )


def _files(folder: Path, top: Path, refused: Refused, depth: int = 0) -> Iterator[Path]:
    """Image files below a folder, sorted. Links are not followed to where they leave `top`, nor to folders at all."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.is_symlink() or depth >= MOST_DEPTH:
                refused.append((_shown(path, top), "a link to a folder" if path.is_symlink() else "too deep"))
            elif _named(path, top, refused):
                yield from _files(path, top, refused, depth + 1)
        elif path.suffix.lower() in SUFFIXES and _named(path, top, refused) and _inside(path, top, refused):
            yield path


def _named(path: Path, top: Path, refused: Refused) -> bool:
    """Whether a name can be written in an index, one a line."""
    if path.name.isprintable():
        return path.parent != top or _inside(path, top, refused)
    refused.append((_shown(path, top), "its name cannot be printed"))
    return False


def _inside(path: Path, top: Path, refused: Refused) -> bool:
    if not path.is_symlink():
        return True
    try:
        inside = path.resolve(strict=True).is_relative_to(top.resolve())
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        refused.append((_shown(path, top), "a link that leaves the folder or leads nowhere"))
    return inside


def _unreadable(path: Path) -> str | None:
    """Why an image must not be decoded, if it must not."""
    from PIL import Image as Pillow

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "not a regular file"
        if found.st_size > MOST_BYTES:
            return f"{found.st_size:,} bytes, more than {MOST_BYTES:,}"
        with warnings.catch_warnings(action="ignore"), Pillow.open(path, formats=IMAGE_FORMATS) as image:
            width, height = image.size
    except Exception as error:  # a decoder may raise anything on a hostile file
        return _short(error)
    return f"{width} x {height} pixels, more than {MOST_PIXELS:,}" if width * height > MOST_PIXELS else None


def _first(files: list[Path]) -> tuple[int, int]:
    """Longer side and channels of the first image that opens; the size of none is 1."""
    from PIL import Image as Pillow

    for file in files:
        if _unreadable(file) is None:
            with Pillow.open(file, formats=IMAGE_FORMATS) as image:
                return max(image.size), 1 if image.mode in ("1", "L", "LA") else 3
    return 1, 3


def _short(error: Exception) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return said.split(": ", 1)[-1][:200]


def _shown(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix().encode("unicode_escape").decode("ascii")
