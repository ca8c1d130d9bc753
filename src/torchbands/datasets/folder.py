"""A user's own images, one folder per class."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from torchbands.core.errors import InputError
from torchbands.datasets.base import SPLITS
from torchbands.datasets.decode import IMAGE_FORMATS
from torchbands.datasets.splits import JUDGE, LEARN, parts

if TYPE_CHECKING:
    import torch

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
TEST_SHARE = 0.2
_LAYOUT = "expected FOLDER/CLASS/*.png (or .jpg ...), or FOLDER/train/CLASS/* and FOLDER/test/CLASS/*"


def load_folder(
    path: str | Path, size: int = 32, channels: int = 3, split: Literal["train", "test"] | None = None
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Read class-per-folder images, scaled to a square.

    Args:
        path: a folder of class folders; or of ``train`` and ``test`` (or ``val``, ``valid`` ...) folders of those.
        size: side of the square in pixels; the whole image is scaled to it (bilinear), aspect ratio is not kept.
        channels: 3 for colour, 1 for grey.
        split: ``"train"`` or ``"test"``; None for all images. Without ``train`` and ``test`` folders a fifth of each
            class is the test split, chosen by a hash of the file names: it does not depend on order or machine.

    Returns:
        Images, uint8 (N, channels, size, size); labels, int64 (N,); class names, sorted, in label order.

    Raises:
        InputError: no such folder, no images, fewer than two classes, a test class without training images, a class
            too small to split, or a file that is not a readable image (it is named).
    """
    import torch

    if channels not in (1, 3) or size < 1:
        raise InputError(f"channels is {channels} and size {size}: channels must be 1 or 3, size at least 1")
    if split is not None and split not in SPLITS:
        raise InputError(f"split is {split!r}, expected 'train', 'test' or None")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", hint=_LAYOUT)
    files, names = _listing(root, split)
    images = np.empty((len(files), channels, size, size), np.uint8)
    for row, (file, _) in enumerate(files):
        images[row] = read_scaled(file, size, channels)
    labels = np.asarray([label for _, label in files], np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels), names


def stamp(path: str | Path) -> str:
    """Digest of the names, sizes and times of all images below a folder: cheap, and another when one was replaced."""
    root = Path(path)
    files = sorted(_images(root, ())) if root.is_dir() else []
    told = [(str(file), (facts := file.stat()).st_size, facts.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(told).encode("utf-8", "replace")).hexdigest()


def _listing(root: Path, split: str | None) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    folders = _parts(root)
    parted = len(folders) == len(SPLITS)
    found = {name: _classes(folder) for name, folder in folders.items()}
    names = tuple(sorted(found["train"]))
    if not names:
        raise InputError(f"{folders['train']} holds no images in class folders", hint=_LAYOUT)
    if len(names) < 2:
        raise InputError(f"{root} holds one class only, {names[0]!r}; at least two are needed", hint=_LAYOUT)
    if unknown := sorted(set(found.get("test", {})) - set(names)):
        raise InputError(f"{folders['test']} holds classes without training images: {', '.join(unknown)}")
    if not parted and split is not None:
        found = _divide(folders["train"], found["train"])
    wanted = SPLITS if split is None else (split,)
    files = [
        (file, label)
        for part in wanted
        for label, name in enumerate(names)
        for file in found.get(part, {}).get(name, ())
    ]
    if not files:
        raise InputError(f"{root / str(split)} holds no images in class folders", hint=_LAYOUT)
    return files, names


def _parts(root: Path) -> dict[str, Path]:
    """The folders of the training and, where one is there, of the test split, whatever they are called."""
    found = parts(root)
    learn, judge = (next((found[name] for name in names if name in found), None) for names in (LEARN, JUDGE))
    made = {"train": learn or judge or root}
    return made | {"test": judge} if learn and judge else made


def _classes(root: Path) -> dict[str, list[Path]]:
    """Maps class names to sorted image files; folders without images do not count as classes."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = {folder.name: sorted(_images(folder, (root.resolve(),))) for folder in folders}
    return {name: files for name, files in listed.items() if files}


def _images(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Image files below a folder. Links are followed, but never back to a folder that is being read."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images(path, (*above, real))
        elif path.suffix.lower() in SUFFIXES:
            if path.exists() and not path.is_file():
                raise InputError(f"{path} is not a regular file", hint="remove it: it might never end")
            yield path


def _divide(root: Path, classes: dict[str, list[Path]]) -> dict[str, dict[str, list[Path]]]:
    parts: dict[str, dict[str, list[Path]]] = {name: {} for name in SPLITS}
    for name, files in classes.items():
        if len(files) < 2:
            raise InputError(f"class {name!r} of {root} has {len(files)} image: too few to split into train and test")
        order = sorted(files, key=lambda file: hashlib.sha256(file.relative_to(root).as_posix().encode()).digest())
        tests = max(1, round(TEST_SHARE * len(files)))
        parts["test"][name], parts["train"][name] = sorted(order[:tests]), sorted(order[tests:])
    return parts


def is_short(raw: bytes, pixels: int) -> bool:
    """Whether a PNG file holds fewer rows than its header promises: Pillow reads the missing ones as zeros."""
    at, found, inflate = 8, 0, zlib.decompressobj()
    depth, kind = raw[24], raw[25]
    least = pixels * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 1) // 8  # the filter bytes of rows come on top
    while at + 8 <= len(raw) and found < least:
        size, name = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        if name == b"IDAT":
            try:
                found += len(inflate.decompress(raw[at + 8 : at + 8 + size], least + pixels))
            except zlib.error:
                return False  # Pillow says what is wrong with it
        at += 12 + size
    return found < least


def read_scaled(path: Path | bytes, size: int, channels: int, name: str = "") -> npt.NDArray[Any]:
    """One image file, or the bytes of one, scaled to a square: uint8 (channels, size, size).

    Raises InputError that names the file, or says `name`.
    """
    from PIL import Image, ImageOps

    name = name or ("an image" if isinstance(path, bytes) else str(path))
    try:
        with Image.open(io.BytesIO(path) if isinstance(path, bytes) else path, formats=IMAGE_FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{name}: pixels of mode {image.mode}, expected 8 bits a channel")
            raw = path if isinstance(path, bytes) else path.read_bytes() if image.format == "PNG" else b""
            if image.format == "PNG" and is_short(raw, image.width * image.height):
                raise ValueError("its data end before its last row, which would be read as black")
            turned = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
            scaled = np.asarray(turned.resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} is not a readable image: {error}", hint="remove or replace this file") from error
    return scaled.transpose(2, 0, 1) if channels == 3 else scaled[None]
