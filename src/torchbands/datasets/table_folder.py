"""Folders of tables: what `datasets.save_to_disk` writes, data folders of the Hugging Face hub, train and test.csv."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torchbands.core.errors import InputError

from .cells import FRAMES, kind_of
from .folder import SUFFIXES as IMAGES
from .splits import JUDGE, LEARN

SUFFIXES = (*FRAMES, ".csv", ".tsv", ".jsonl", ".ndjson")
#: Files that are looked at to see whether a folder holds images.
_LOOKED = 20_000


@dataclass(frozen=True)
class Tables:
    """The files of one part of a data set, in order, and what was chosen."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def tables_of(root: Path, test: bool) -> Tables | None:
    """The files of tables that a folder holds, of the part to judge by (`test`) or to learn from; None where it holds
    none. Raises InputError for a folder whose own index is damaged or leaves the folder."""
    if (root / "dataset_dict.json").is_file():
        parts = {name: root / name for name in _names(root / "dataset_dict.json") if (root / name).is_dir()}
        if not parts:
            raise InputError(f"{root / 'dataset_dict.json'} names no part that lies beside it")
        part, note = _chosen(parts, test, root)
        return Tables(_saved(parts[part]), note)
    if (root / "state.json").is_file() and list(root.glob("*.arrow")):
        return Tables(_saved(root))
    for folder in (root, root / "data"):
        if folder.is_dir() and (found := _loose(folder)):
            part, note = _chosen(found, test, root)
            return Tables(tuple(found[part]), note)
    return None


def _loose(folder: Path) -> dict[str, list[Path]]:
    """Part -> files such as train.csv or train-00000-of-00002.parquet; "" for one file without a part's name.

    A folder that holds images is one of images, whatever lists lie beside them.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p) in SUFFIXES and p.name[0] not in "._")
    if not files or holds_images(folder):
        return {}
    found: dict[str, list[Path]] = {}
    for path in files:
        stem = path.name.lower()
        part = next((name for name in (*LEARN, *JUDGE) if _begins(stem, name)), "")
        found.setdefault(part, []).append(path)
    kinds = {kind_of(path) for path in files}
    if "" in found and (len(found[""]) > 1 or len(found) > 1):
        raise InputError(
            f"{folder} holds several files of rows: {', '.join(p.name for p in files[:4])}", hint="name one of them"
        )
    if len(kinds) > 1:
        raise InputError(f"{folder} holds rows as {' and '.join(sorted(kinds))}", hint="name one of the files")
    return found


def holds_images(folder: Path) -> bool:
    """Whether images lie in a folder or in those below it; of very many files the first are looked at."""
    looked = 0
    for _, _, names in os.walk(folder):
        looked += len(names)
        if any(Path(name).suffix.lower() in IMAGES for name in names):
            return True
        if looked > _LOOKED:
            break
    return False


def _begins(stem: str, name: str) -> bool:
    return stem.startswith(name) and not stem[len(name)].isalpha()


def _chosen(parts: Mapping[str, object], test: bool, root: Path) -> tuple[str, tuple[str, ...]]:
    order = (*JUDGE, *LEARN) if test else (*LEARN, *JUDGE)
    part = next((name for name in order if name in parts), next(iter(parts)))
    rest = [name for name in parts if name != part]
    told = f"rows are those of part {part!r}" + (f"; not read: {', '.join(rest[:5])}" if rest else "")
    return part, (told,) if part else ()


def _saved(folder: Path) -> tuple[Path, ...]:
    """The files of one saved data set, by its own index where that is there."""
    names = [p.name for p in sorted(folder.glob("*.arrow")) if p.name[0] not in "._"]
    state = folder / "state.json"
    if state.is_file():
        try:
            said = json.loads(_small(state))
            names = [str(entry["filename"]) for entry in said["_data_files"]]
            indexed = said.get("_indices_data_files")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{state} is damaged ({type(error).__name__})") from None
        if indexed:
            raise InputError(
                f"{folder} keeps a selection of rows, which is not read", hint="dataset.flatten_indices() before saving"
            )
    if bad := [name for name in names if Path(name).name != name or not (folder / name).is_file()]:
        raise InputError(f"{folder} has no file {bad[0]!r}")
    if not names:
        raise InputError(f"{folder} holds no .arrow file")
    return tuple(folder / name for name in names)


def _names(path: Path) -> list[str]:
    try:
        found = json.loads(_small(path))["splits"]
        return [str(name) for name in found if Path(str(name)).name == str(name)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__})") from None


def _small(path: Path) -> str:
    if path.stat().st_size > 1 << 24:
        raise InputError(f"{path} is too large for an index")
    return path.read_text("utf-8")
