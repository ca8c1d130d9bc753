"""Saving and loading a modality: its spec is in the card, other parts are files in the same folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.core.registry import build

#: What the files of a kind of sample may be called, and how many bytes each may have.
FILES = frozenset({"tokenizer.json", "modality.json", "modality.safetensors"})
MOST = 64 * 2**20


def write_modality(modality: Modality, folder: Path) -> None:
    """Write the files of a kind of sample into a folder."""
    files = modality.files()
    if other := sorted(set(files) - FILES):
        known = ", ".join(sorted(FILES))
        raise InputError(f"{modality.name} saves {', '.join(other)}", hint=f"its files are called {known}")
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_modality(spec: Mapping[str, Any], folder: Path, origin: Path) -> Modality:
    """The kind of sample of a card's spec, with its files from the folder.

    Args:
        origin: the file that the spec was read from.

    Raises InputError where a file is missing, too large, or another than the spec says.
    """
    made = build(spec, "modality", origin=origin)
    assert isinstance(made, Modality)
    files = {}
    for name in sorted(FILES):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            if path.stat().st_size > MOST:
                raise InputError(f"{path} has {path.stat().st_size:,} bytes, at most {MOST:,} are read")
            files[name] = path.read_bytes()
    return made.with_files(files)
