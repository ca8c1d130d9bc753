"""A store: victims/<key>/ and records/<key>.json. Records are written atomically."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from torchbands import __version__
from torchbands.core.errors import InputError
from torchbands.zoo.artifact import fits, summed
from torchbands.zoo.files import read_text, write_json

#: The entry of a record that holds the checksum of the rest.
SUM = "sha256"


class Store:
    """The files of one benchmark."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file; a store is a directory")

    def victim_dir(self, key: str) -> Path:
        return self.folder / "victims" / key

    def rounds_dir(self, key: str) -> Path:
        """Where a training of rounds keeps its state until its victim is made."""
        return self.folder / "rounds" / key

    def victim_record(self, key: str) -> dict[str, Any] | None:
        return _record(self.folder / "outcomes" / f"{key}.json")

    def write_victim_record(self, record: dict[str, Any]) -> None:
        write_json(self.folder / "outcomes" / f"{record['key']}.json", summed(record, SUM))

    def record(self, key: str) -> dict[str, Any] | None:
        return _record(self.folder / "records" / f"{key}.json")

    def write_record(self, record: dict[str, Any]) -> None:
        write_json(self.folder / "records" / f"{record['key']}.json", summed(record, SUM))

    def records(self, kind: str) -> Iterator[dict[str, Any]]:
        """Every record of a kind ("outcomes" of victims, or "records" of defenses), by key."""
        for path in sorted((self.folder / kind).glob("[!.]*.json")):
            record = _record(path)
            if record is not None:
                yield record

    def asked(self, kind: str) -> Iterator[dict[str, Any]]:
        """The records of a kind that the last grid asks for: not those of other data, devices or settings."""
        keys = set(self.grid()["keys"][kind])
        yield from (record for record in self.records(kind) if record.get("key") in keys)

    def write_grid(self, grid: dict[str, Any]) -> None:
        """Raises InputError where a grid.json lies there that no run wrote: such as the user's own grid file."""
        path = self.folder / "grid.json"
        found = _read(path)
        if os.path.lexists(path) and not (found and {"grid", "command", "created"} <= set(found)):
            raise InputError(
                f"{path} was not written by a run, and is left as it is", hint="name a folder for the store"
            )
        write_json(self.folder / "grid.json", grid)

    def grid(self) -> dict[str, Any]:
        found = _read(self.folder / "grid.json")
        if found is None:
            raise InputError(
                f"{self.folder} holds no benchmark", hint=f"run one: bands bench run quick --store {self.folder}"
            )
        return found


def versions() -> dict[str, str]:
    """Everything besides the spec that the results depend on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"
    return {
        "torchbands": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.system(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }


def altered(record: Mapping[str, Any], path: Path) -> str:
    """Why a record is rejected, or an empty text. Records of older versions have no checksum."""
    if record.get("key") != path.stem:
        return "it is the record of another cell"
    return "" if fits(record, SUM) else "it was altered: its checksum does not fit"


def _record(path: Path) -> dict[str, Any] | None:
    """A valid record, or None: an invalid one counts as missing and is computed again."""
    found = _read(path)
    return None if found is None or altered(found, path) else found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
