"""Data already on this machine: the user's folder, and data sets bundled with scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchbands.core.errors import DataUnavailable
from torchbands.datasets.archives import is_archive, unpack
from torchbands.datasets.base import Progress
from torchbands.datasets.checks import verify_file

VARIABLE = "TORCHBANDS_DATA"


@dataclass(frozen=True)
class LocalFolder:
    """A folder under the one that the environment variable ``TORCHBANDS_DATA`` names.

    Args:
        names: folder names tried in order.
        checksums: for files of known content, their checksums; files not named here pass on to the decoded pins.
    """

    names: tuple[str, ...]
    checksums: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        return f"folder ${VARIABLE}/{' or '.join(self.names)}"

    def fetch(self, target: Path, progress: Progress) -> Path:
        root = os.environ.get(VARIABLE)
        if not root:
            raise DataUnavailable(f"{VARIABLE} is not set")
        found = [Path(root).expanduser() / name for name in self.names]
        found = [folder for folder in found if folder.is_dir()]
        if not found:
            raise DataUnavailable(f"{root} holds no folder {' or '.join(self.names)}")
        folder = found[0]
        for name, checksum in self.checksums.items():
            if (folder / name).is_file():
                verify_file(folder / name, checksum)
        archives = sorted(path for path in folder.iterdir() if is_archive(path))
        for number, archive in enumerate(archives):
            progress(number, len(archives), f"unpacking {archive.name}")
            unpack(archive, target)
        return target if archives else folder


@dataclass(frozen=True)
class Bundled:
    """Data bundled with an installed package; nothing is downloaded."""

    package: str

    def describe(self) -> str:
        return f"bundled with {self.package}"

    def fetch(self, target: Path, progress: Progress) -> Path:
        target.mkdir(parents=True, exist_ok=True)
        return target
