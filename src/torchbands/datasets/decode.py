"""Raw files to arrays. No format read here can carry code: idx, CIFAR's binary records, PNG, and scikit-learn's CSV."""

from __future__ import annotations

import gzip
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.base import Arrays, image_array

_IDX_STEMS = {"train": "train", "test": "t10k"}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")
"""The only formats Pillow may try: some of its others start external programs."""
_CIFAR_BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}


def find(folder: Path, *names: str) -> Path | None:
    """The first file of one of these names in ``folder`` or up to three folders below it."""
    for depth in range(4):
        for name in names:
            for path in sorted(folder.glob("*/" * depth + name)):
                if path.is_file():
                    return path
    return None


def need(folder: Path, *names: str) -> Path:
    """As :func:`find`, but a missing file is an error that names it."""
    path = find(folder, *names)
    if path is None:
        raise DataUnavailable(f"{folder.name}: no file {' or '.join(names)}")
    return path


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzipped or not (format: LeCun, Cortes and Burges, MNIST)."""
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise DataUnavailable(f"{path.name}: damaged gzip: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataUnavailable(f"{path.name}: not an idx file of unsigned bytes")
    rank = raw[3]
    if len(raw) < 4 + 4 * rank:
        raise DataUnavailable(f"{path.name}: truncated header")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != math.prod(shape):
        raise DataUnavailable(f"{path.name}: {body.size} bytes of data, its header says {shape}")
    return body.reshape(shape)


def decode_idx(folder: Path) -> Arrays:
    """MNIST and Fashion-MNIST: four idx files, gzipped or not."""
    arrays: Arrays = {}
    for split, stem in _IDX_STEMS.items():
        for kind, suffix in (("images", "images-idx3-ubyte"), ("labels", "labels-idx1-ubyte")):
            name = f"{stem}-{suffix}"
            values = read_idx(need(folder, name, f"{name}.gz"))
            arrays[f"{split}.{kind}"] = image_array(values) if kind == "images" else values.astype(np.int64)
    return arrays


def decode_cifar10(folder: Path) -> Arrays:
    """CIFAR-10: the binary batches, or the same rows as PNG batches with JSON labels."""
    return _cifar_binary(folder) if find(folder, "data_batch_1.bin") else _cifar_png(folder)


def _cifar_binary(folder: Path) -> Arrays:
    arrays: Arrays = {}
    for split, names in _CIFAR_BATCHES.items():
        rows = []
        for name in names:
            raw = np.fromfile(need(folder, f"{name}.bin"), np.uint8)
            if raw.size == 0 or raw.size % 3073:
                raise DataUnavailable(f"{name}.bin: {raw.size} bytes, expected records of 3073")
            rows.append(raw.reshape(-1, 3073))
        records = np.concatenate(rows)
        arrays[f"{split}.images"] = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32))
        arrays[f"{split}.labels"] = records[:, 0].astype(np.int64)
    return arrays


def _cifar_png(folder: Path) -> Arrays:
    arrays: Arrays = {}
    for split, names in _CIFAR_BATCHES.items():
        pixels = [read_image(need(folder, f"{name}.png")).reshape(-1, 32, 32, 3) for name in names]
        labels = json.loads(need(folder, f"{split}_lables.json").read_text())  # the package's own spelling
        arrays[f"{split}.images"] = image_array(np.concatenate(pixels))
        arrays[f"{split}.labels"] = np.asarray(labels, np.int64)
    return arrays


def read_image(path: Path) -> npt.NDArray[Any]:
    """An image file as uint8 (H, W, 3). For verified files only: large tilings are allowed."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataUnavailable(f"{path.name}: not a readable image: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def decode_digits(folder: Path) -> Arrays:
    """The 1,797 digits of scikit-learn (Alpaydin and Kaynak 1998): 8x8, grey 0..16 scaled to 0..255.

    The rows are in order of writer, so the last 360 are the test split: few writers are in both.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = image_array(np.round(digits.images * (255 / 16)).astype(np.uint8))
    labels = digits.target.astype(np.int64)
    return {
        "train.images": images[:-360],
        "train.labels": labels[:-360],
        "test.images": images[-360:],
        "test.labels": labels[-360:],
    }
