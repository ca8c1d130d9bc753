"""`suspect.toml`: how a suspect was opened, so that --arch, --mean, --std and the like are typed once.

It may name code (--arch), so it is read from the working folder alone, and not where the suspect lies there too:
whoever made the suspect could have put it beside it. There it is read when it is named by --settings.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from torchbands.core.errors import InputError

from . import console

NAME = "suspect.toml"
_FIRST = "# how a suspect was opened: bands reads it in this folder, and writes it anew when flags say otherwise\n"
_TYPES: dict[str, tuple[type, ...]] = {
    "arch": (str,),
    "classes": (int,),
    "class_names": (str,),
    "output": (str,),
    "mean": (list,),
    "std": (list,),
    "size": (int,),
    "channels": (int,),
}


def recall(given: argparse.Namespace, suspect: str) -> None:
    """Fill in what the command line leaves out; flags win."""
    named = getattr(given, "settings", None)
    if named is None and (Path(suspect).is_dir() or suspect.endswith(".onnx")):
        return  # they say themselves what they are
    path = Path(named or NAME)
    if not path.is_file():
        if named:
            raise InputError(f"there is no {path}", hint="name a suspect.toml, or leave --settings out")
        return
    if named is None and _beside(path, suspect):
        if getattr(given, "arch", None) is None:
            console.note(
                f"note: {NAME} lies beside the suspect, where others may have written it; it is read only when you "
                f"name it: --settings {NAME}"
            )
        return
    used = []
    for key, value in _read(path).items():
        if getattr(given, key, None) is None:
            setattr(given, key, tuple(map(float, value)) if isinstance(value, list) else value)
            used.append(f"{key} {value}")
    if used:
        console.note(f"note: from {path}: {', '.join(used)}")


def remember(given: argparse.Namespace, suspect: str) -> None:
    """Write what was said on the command line, where that is more than nothing; a file of somebody else stays."""
    said = {key: getattr(given, key, None) for key in _TYPES}
    said = {key: value for key, value in said.items() if value is not None}
    path = Path(NAME)
    if not said or path.is_symlink() or (path.exists() and not path.read_text("utf-8", "replace").startswith(_FIRST)):
        return
    text = _FIRST + "".join(f"{k} = {json.dumps(list(v) if isinstance(v, tuple) else v)}\n" for k, v in said.items())
    if path.exists() and path.read_text("utf-8") == text:
        return
    try:
        path.write_text(text, "utf-8")
    except OSError:  # a folder that cannot be written is no reason to fail a scan
        return
    how = f"--settings {NAME} in place of the flags" if _beside(path, suspect) else "no flag for it"
    console.note(f"note: {NAME} keeps {', '.join(said)}; the next command here needs {how}")


def _beside(path: Path, suspect: str) -> bool:
    here, at = path.resolve().parent, Path(suspect).resolve()
    return at.parent == here or here == at or here.is_relative_to(at)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} is not valid TOML ({error})", hint="fix it, or remove it and type the flags"
        ) from None
    for key, value in found.items():
        fits = key in _TYPES and isinstance(value, _TYPES[key]) and not isinstance(value, bool)
        if fits and isinstance(value, list):
            fits = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
        if not fits:
            known = ", ".join(_TYPES)
            raise InputError(f"{path}: {key} = {value!r} is not a setting of a suspect", hint=f"known: {known}")
    return found
