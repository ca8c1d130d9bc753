"""Where a suspect lies: nothing is imported from there."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torchbands
from torchbands.core.errors import InputError

from .refusal import shown


@dataclass(frozen=True)
class Home:
    """The folder of a suspect. whole: the suspect is the folder, so that everything below belongs to it too."""

    path: Path
    whole: bool

    @classmethod
    def of(cls, suspect: Path) -> Home:
        at = suspect.resolve()
        return cls(at, True) if at.is_dir() else cls(at.parent, False)

    def holds(self, place: Path) -> bool:
        """Whether a path is the suspect's, and not part of the Python installation."""
        place = place.resolve()
        if not self.whole:
            return place == self.path
        own: list[str | Path] = [sys.prefix, sys.base_prefix, sys.exec_prefix, Path(torchbands.__file__).parents[1]]
        return place.is_relative_to(self.path) and not any(place.is_relative_to(Path(p).resolve()) for p in own)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """While the block runs, sys.path has no entry that is the suspect's (such as the current directory)."""
        before: list[str] = list(sys.path)
        sys.path[:] = [p for p in before if not self.holds(Path(p or "."))]
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path[:] = before

    def beside(self, name: str) -> Path | None:
        """A file of a module's name that lies with the suspect, from where nothing is imported."""
        for path in (self.path / f"{name}.py", self.path / name / "__init__.py"):
            if path.is_file():
                return path
        return None

    def refuse(self, name: str) -> None:
        """Raises InputError for a module that lies with the suspect. Its parents must have been imported."""
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return
        found = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        places = [Path(p) for p in found if p and Path(p).exists()]
        if "." not in name:  # the folder that a top-level module or package lies in
            places += [p.parent for p in places] + [p.parent.parent for p in places if p.name == "__init__.py"]
        if any(self.holds(p) for p in places):
            raise InputError(
                f"--arch: module {shown(name)} lies in the suspect's folder, and nothing there is run",
                hint="if you wrote that file yourself, name it: --arch ./file.py:factory",
            )
