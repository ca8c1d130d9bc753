"""A folder of class folders of images that somebody else filled: what cannot be read is left out by name."""

from __future__ import annotations

import io
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchbands.core.data import Data, Pixels
from torchbands.core.errors import InputError
from torchbands.modalities.image import Image
from torchbands.tasks.sources.decode import IMAGE_FORMATS
from torchbands.tasks.sources.folder import SUFFIXES, read_scaled
from torchbands.tasks.sources.splits import LEARN, chosen, parts

from .rows import Rows

#: A larger image file, or one of more pixels, is refused before it is decoded.
MOST_BYTES, MOST_PIXELS = 64 << 20, 40_000_000
#: Images are not scaled to more than this unless a size is given. Deeper folders are not read.
MOST_SIDE, MOST_DEPTH = 64, 16
_LAYOUT = "expected FOLDER/CLASS/*.png (or .jpg ...), or FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (val, valid ...)"

Refused = list[tuple[str, str]]


def read_folder(
    root: Path,
    size: int | None = None,
    channels: int | None = None,
    split: str = "clean",
    label: str | None = None,
) -> Rows:
    """Images of a folder of class folders, scaled to squares, with the path of each.

    Where a metadata file (metadata.csv, .jsonl or .parquet) lies in it, its rows name the images and their labels, by
    the column `label`.

    Left out and told in `refused`: images that cannot be decoded, decompression bombs, links that leave the folder,
    what is no regular file, files of other kinds, images outside of class folders, and names that cannot be printed.
    Size and channels are those that most images have.

    Raises InputError where nothing is left, where there are fewer than two classes, or for a wrong size or channels.
    """
    if channels not in (None, 1, 3) or (size is not None and not 1 <= size <= 1024):
        raise InputError(f"channels is {channels} and size {size}: channels is 1 or 3, size 1 to 1024")
    found = parts(root)
    part = chosen(found, split == "test") if found else ""
    top = found[part] if found else root
    refused: Refused = []
    notes: list[str] = []
    if found:
        others = sorted(p.name for p in root.iterdir() if p != top and not p.name.startswith("."))
        rest = f"; not read: {', '.join(map(_printable, others[:5]))}" if others else ""
        notes.append(f"rows are those of {_printable(top.name)}/{rest}")
    from .listed_rows import metadata_of, read_listed

    if (listing := metadata_of(top)) is not None:
        return read_listed(top, listing, size, channels, split, label, notes)
    classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))
    refused += [(shown(p, top), "it lies in no class folder") for p in _loose(top)]
    listed = {folder.name: list(_files(folder, top, refused)) for folder in classes if _named(folder, top, refused)}
    files = [file for found_here in listed.values() for file in found_here]
    kept, pixels = read_files(files, top, size, channels, refused, notes)
    present = {name.split("/", 1)[0] for name in kept}
    names = tuple(sorted(present | _taught(found, part)))
    if len(present) < 2:
        raise InputError(f"{top} holds one class only, {min(present)!r}; at least two are needed", hint=_LAYOUT)
    if empty := sorted(set(listed) - set(names)):
        notes.append(f"folders without an image that could be read are no classes: {', '.join(empty[:5])}")
    if all(name.isdecimal() for name in names) and names != tuple(sorted(names, key=int)):
        notes.append(f"class folders are numbered as text, as torchvision does: {', '.join(names[:4])} ...")
    labels = torch.tensor([names.index(name.split("/", 1)[0]) for name in kept])
    return Rows(
        Data(Pixels(pixels), labels),
        Image(channels=pixels.shape[1], size=pixels.shape[2]),
        names,
        root.name or str(root),
        tuple(kept),
        tuple(refused),
        tuple(notes),
    )


def read_images(path: Path, size: int, channels: int, classes: int) -> Rows:
    """One image, or all images below a folder, in whatever folders they lie, as inputs of a model: labels are 0.

    Left out and told in `refused`: as by `read_folder`. Raises InputError where nothing is left.
    """
    refused: Refused = []
    notes: list[str] = []
    top = path.parent if path.is_file() else path
    files = [path] if path.is_file() else list(_files(path, path, refused))
    kept, pixels = read_files(files, top, size, channels, refused, notes)
    made = Data(Pixels(pixels), torch.zeros(len(kept), dtype=torch.int64))
    names = tuple(map(str, range(classes)))
    image = Image(channels=channels, size=size)
    return Rows(made, image, names, path.name or str(path), tuple(kept), tuple(refused), tuple(notes))


def read_files(
    files: list[Path], top: Path, size: int | None, channels: int | None, refused: Refused, notes: list[str]
) -> tuple[list[str], Tensor]:
    """Names of the images that could be read, and their pixels, uint8 (N, C, H, H)."""
    seen = _seen(files, top, refused)
    if seen:
        size, channels = common(seen, size, channels, notes)
    kept, images = [], []
    for file in seen:
        try:
            images.append(read_scaled(file, size or 0, channels or 0))
            kept.append(file.relative_to(top).as_posix())
        except Exception as error:  # a decoder may raise anything on a hostile file
            refused.append((file.relative_to(top).as_posix(), _short(error)))
    if not images:
        what = "no image that could be read" if refused else "no images in class folders"
        first = f": {refused[0][0]} ({refused[0][1]})" if refused else ""
        raise InputError(f"{top} holds {what}{first}", hint=_LAYOUT)
    notes.append(f"images are read as squares of {size} pixels with {channels} channel{'s' if channels != 1 else ''}")
    return kept, torch.from_numpy(np.stack(images))


def _files(folder: Path, top: Path, refused: Refused, depth: int = 0) -> Iterator[Path]:
    """Image files below a folder, sorted. Links are not followed to where they leave `top`, nor to folders at all."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.is_symlink() or depth >= MOST_DEPTH:
                refused.append((shown(path, top), "a link to a folder" if path.is_symlink() else "too deep"))
            elif _named(path, top, refused):
                yield from _files(path, top, refused, depth + 1)
        elif path.suffix.lower() not in SUFFIXES:
            refused.append((shown(path, top), f"a kind that is not read ({_printable(path.suffix) or 'no suffix'})"))
        elif _named(path, top, refused) and inside(path, top, refused):
            yield path


def _taught(found: dict[str, Path], part: str) -> set[str]:
    """Classes of the training part: where rows of another part lack one, the numbers of the rest must not move."""
    learn = next((found[name] for name in LEARN if name in found), None)
    if learn is None or part in LEARN:
        return set()
    return {p.name for p in learn.iterdir() if p.is_dir() and p.name.isprintable() and p.name[0] not in "._"}


def _loose(top: Path) -> list[Path]:
    return sorted(p for p in top.iterdir() if not p.is_dir() and p.suffix.lower() in SUFFIXES)


def _named(path: Path, top: Path, refused: Refused) -> bool:
    """Whether a name can be written in an index, one a line."""
    if path.name.isprintable():
        return path.parent != top or inside(path, top, refused)
    refused.append((shown(path, top), "its name cannot be printed"))
    return False


def inside(path: Path, top: Path, refused: Refused) -> bool:
    if not path.is_symlink():
        return True
    try:
        inside = path.resolve(strict=True).is_relative_to(top.resolve())
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        refused.append((shown(path, top), "a link that leaves the folder or leads nowhere"))
    return inside


def _seen(files: list[Path], top: Path, refused: Refused) -> dict[Path, tuple[int, int]]:
    """Longer side and channels of each file that may be decoded; the others are refused."""
    made = {}
    for file in files:
        seen = head(file)
        if isinstance(seen, str):
            refused.append((file.relative_to(top).as_posix(), seen))
        else:
            made[file] = seen
    return made


def head(source: Path | bytes) -> tuple[int, int] | str:
    """Longer side and channels of an image file, or of its bytes, by its header; or why it must not be decoded."""
    from PIL import Image as Pillow

    try:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            return "not a regular file"
        held = source.stat().st_size if isinstance(source, Path) else len(source)
        if held > MOST_BYTES:
            return f"{held:,} bytes, more than {MOST_BYTES:,}"
        opened = source if isinstance(source, Path) else io.BytesIO(source)
        with warnings.catch_warnings(action="ignore"), Pillow.open(opened, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            depth = 1 if image.mode in ("1", "L", "LA") else 3
    except Exception as error:  # a decoder may raise anything on a hostile file
        return _short(error)
    if width * height > MOST_PIXELS:
        return f"{width} x {height} pixels, more than {MOST_PIXELS:,}"
    return max(width, height), depth


def common(
    seen: Mapping[Any, tuple[int, int]], size: int | None, channels: int | None, notes: list[str]
) -> tuple[int, int]:
    """The size and channels that most images have; where no size is the rule, the middle one. Others are told."""
    sides, depths = Counter(side for side, _ in seen.values()), Counter(depth for _, depth in seen.values())
    if channels is None:
        channels = 1 if depths[1] > depths[3] else 3
        if odd := depths[1 if channels == 3 else 3]:
            kinds = ("grey", "colour") if channels == 3 else ("coloured", "grey")
            notes.append(f"{odd:,} of {len(seen):,} images are {kinds[0]}: they are read as {kinds[1]} like the rest")
    if size is None:
        side, count = sides.most_common(1)[0]
        if 2 * count < len(seen):
            side = sorted(sides.elements())[len(seen) // 2]
        if odd := len(seen) - sides[side]:
            low, high = min(sides), max(sides)
            notes.append(f"{odd:,} of {len(seen):,} images are not {side} pixels long ({low} to {high}): scaled to it")
        if side > MOST_SIDE:
            notes.append(f"images are scaled to {MOST_SIDE} pixels, from {side}: give size for more")
        size = min(side, MOST_SIDE)
    return size, channels


def _short(error: Exception) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return said.split(": ", 1)[-1][:200]


def _printable(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name


def shown(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix().encode("unicode_escape").decode("ascii")
