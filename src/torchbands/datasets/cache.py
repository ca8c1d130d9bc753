"""The cache on disk: one folder per data set, with the decoded arrays as safetensors and a receipt."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.base import SPLITS, Arrays, DataSet
from torchbands.datasets.checks import file_hash
from torchbands.zoo.files import new_file, read_text, sweep, write_json

VARIABLE = "TORCHBANDS_CACHE"
DECODED = "decoded.safetensors"
RECEIPT = "receipt.json"


def cache_root() -> Path:
    """``$TORCHBANDS_CACHE``, or the user's cache folder of this platform."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return user_cache_path("torchbands", appauthor=False)


def data_folder(name: str) -> Path:
    """Where a data set is, or would be, cached."""
    return cache_root() / "data" / name


def read_receipt(folder: Path) -> dict[str, Any] | None:
    """The receipt of a completely cached data set, or None."""
    try:
        receipt = json.loads(read_text(folder / RECEIPT))
        size = (folder / DECODED).stat().st_size
    except (OSError, ValueError):
        return None
    return receipt if isinstance(receipt, dict) and receipt.get("bytes") == size else None


def intact(folder: Path, dataset: DataSet) -> bool:
    """Whether the decoded arrays match the pinned checksums; computed once per process.

    Neither a kept modification time nor a receipt that says so proves anything: both lie beside the file.
    """
    receipt, path = read_receipt(folder), folder / DECODED
    if receipt is None or not isinstance(receipt.get("arrays"), dict):
        return False
    told = path.stat()
    said = {str(k): v.get("sha256") if isinstance(v, dict) else None for k, v in receipt["arrays"].items()}
    found = _hashes(path, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)
    pins = dataset.pinned(_training_rows(path))
    return pins is not None and found == said and all(found.get(key) == expected for key, expected in pins.items())


@lru_cache(maxsize=32)
def _hashes(path: Path, *changed: int) -> dict[str, str]:
    """sha256 of each array of a file; none where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: array_hashes({key: file.get_tensor(key)})[key] for key in sorted(file.keys())}
    except (SafetensorError, OSError, ValueError):
        return {}


def _training_rows(path: Path) -> int:
    """Number of arrays actually in a file, regardless of its receipt; -1 if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_slice("train.labels").get_shape()[0])
    except (SafetensorError, OSError, ValueError, IndexError):
        return -1


def check_arrays(dataset: DataSet, arrays: Arrays) -> None:
    """Refuse decoded arrays of the wrong shape, type or content.

    Raises:
        DataUnavailable: naming the array, what it is and what was expected.
    """
    if dataset.kind == "text":
        _check_text(dataset, arrays)
    for split in SPLITS if dataset.kind == "image" else ():
        images, labels = arrays[f"{split}.images"], arrays[f"{split}.labels"]
        if images.dtype != np.uint8 or images.shape[1:] != dataset.shape or len(images) == 0:
            raise DataUnavailable(
                f"{split} images are {images.dtype} {images.shape}, expected uint8 (N, {str(dataset.shape)[1:]}"
            )
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise DataUnavailable(f"{split} labels are {labels.dtype} {labels.shape}, expected int64 ({len(images)},)")
        if labels.min() < 0 or labels.max() >= len(dataset.classes):
            raise DataUnavailable(f"{split} labels reach {labels.max()}, expected 0..{len(dataset.classes) - 1}")
    found, rows = array_hashes(arrays), len(arrays["train.labels"])
    if (pins := dataset.pinned(rows)) is None:
        known = " or ".join(f"{n:,}" for n in dataset.variants)
        raise DataUnavailable(f"there are {rows:,} training rows, expected {known}")
    for key, expected in pins.items():
        if found[key] != expected:
            raise DataUnavailable(f"decoded {key} have sha256 {found[key]}, expected {expected}")


def _check_text(dataset: DataSet, arrays: Arrays) -> None:
    for split in SPLITS:
        labels, ends = arrays[f"{split}.labels"], arrays[f"{split}.ends"]
        if len(labels) == 0 or labels.shape != ends.shape or int(ends[-1]) != len(arrays[f"{split}.text"]):
            raise DataUnavailable(f"{split} has {len(labels)} labels for {len(ends)} texts")
        if labels.min() < 0 or labels.max() >= len(dataset.classes):
            raise DataUnavailable(f"{split} labels reach {labels.max()}, expected 0..{len(dataset.classes) - 1}")


def array_hashes(arrays: Arrays) -> dict[str, str]:
    """sha256 of each array's bytes in C order, little-endian."""
    return {
        key: hashlib.sha256(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).data).hexdigest()
        for key, a in sorted(arrays.items())
    }


def write(folder: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write arrays, then the receipt, each atomically."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    with new_file(folder / DECODED) as temporary:
        save_file(arrays, temporary)
        (folder / RECEIPT).unlink(missing_ok=True)
    path = folder / DECODED
    receipt = dict(facts) | {
        "bytes": path.stat().st_size,
        "mtime_ns": path.stat().st_mtime_ns,
        "sha256": file_hash(path),
        "arrays": {key: {"shape": list(a.shape), "sha256": array_hashes({key: a})[key]} for key, a in arrays.items()},
    }
    write_json(folder / RECEIPT, receipt)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process downloads a data set at a time; others wait for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataUnavailable(
            f"the cache folder {folder} cannot be written: {error.strerror}",
            hint=f"name a writable one: export {VARIABLE}=FOLDER",
        ) from error
    with FileLock(folder / ".lock"):
        yield
