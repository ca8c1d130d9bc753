"""Image files that may be hostile: which may be decoded, and how they are read as squares of one size."""

from __future__ import annotations

import io
import stat
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.datasets.decode import IMAGE_FORMATS
from torchbands.datasets.folder import read_scaled

#: A larger image file, or one of more pixels, is refused before it is decoded.
MOST_BYTES, MOST_PIXELS = 64 << 20, 40_000_000
#: Images are not scaled to more than this unless a size is given.
MOST_SIDE = 64
LAYOUT = "expected FOLDER/CLASS/*.png (or .jpg ...), or FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (val, valid ...)"

Refused = list[tuple[str, str]]


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
        raise InputError(f"{top} holds {what}{first}", hint=LAYOUT)
    notes.append(f"images are read as squares of {size} pixels with {channels} channel{'s' if channels != 1 else ''}")
    return kept, torch.from_numpy(np.stack(images))


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


def printable(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name


def shown(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix().encode("unicode_escape").decode("ascii")
