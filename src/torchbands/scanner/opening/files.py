"""Reading a suspect's bytes: regular files only, links inside a folder not followed, nothing larger than allowed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchbands.core.errors import InputError, Unsupported

from .limits import MAX_FILES, MB
from .refusal import alert, ambiguous, malformed, plain, shown, unusual

_KINDS = {
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISDIR: "a directory",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}
#: Names the model that an adapter (LoRA and the like) changes.
ADAPTER = "adapter_config.json"
#: What stands in the place of a file that Git keeps elsewhere.
_POINTER = b"version https://git-lfs.github.com/spec/"
#: Without these, opening a named pipe waits for its writer, and a link is followed.
_NO_WAIT, _NO_LINK = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_NOFOLLOW", 0)


def read(path: Path, most: int, *, follow: bool = True) -> bytearray:
    """A whole regular file.

    Raises InputError when it is missing, unreadable, no regular file, or longer than `most` bytes.
    """
    flags = os.O_RDONLY | _NO_WAIT | getattr(os, "O_BINARY", 0) | (0 if follow else _NO_LINK)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{plain(path)} cannot be read: {plain(reason)}", hint="name a model file or folder") from None
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            kind = next((name for test, name in _KINDS.items() if test(about.st_mode)), "no regular file")
            raise InputError(f"{plain(path)} is {kind}, not a file", hint="name a model file or folder")
        if about.st_size > most:
            raise InputError(
                f"{plain(path)} has {about.st_size / MB:,.0f} MB, the limit is {most / MB:,.0f} MB",
                hint="raise it with Limits(megabytes=...) if you have the memory",
            )
        data = bytearray(about.st_size)
        view, done = memoryview(data), 0
        while done < len(data) and (got := file.readinto(view[done:])):
            done += got
        if done != len(data):
            raise InputError(f"{plain(path)} changed while it was read", hint="copy it first, then scan the copy")
    if data.startswith(_POINTER):
        raise Unsupported(f"{plain(path)} is a Git LFS pointer: its content was not fetched", hint="run: git lfs pull")
    if data[:512].lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise Unsupported(f"{plain(path)} is a web page: its download failed", hint="download the file itself again")
    return data


def parse_json(data: bytes | bytearray, name: str) -> dict[str, Any]:
    """A JSON object from bytes. Raises Refusal for anything else, however deep."""
    try:
        found = json.loads(bytes(data).decode("utf-8"), object_pairs_hook=lambda pairs: _once(pairs, name))
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else plain(str(error)[:100])
        raise malformed(f"{shown(name)} is not the JSON it should be: {why}", subject=name) from None
    if not isinstance(found, dict):
        raise malformed(f"{shown(name)} holds {type(found).__name__}, expected a JSON object", subject=name)
    return found


def _once(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    """A JSON object whose keys differ: of two, some readers take the first."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = Counter(k for k, _ in pairs).most_common(1)[0][0]
        raise ambiguous(f"{shown(name)} has the key {shown(twice)} twice", subject=name)
    return made


@dataclass
class Folder:
    """The plain files of a suspect's folder. Links that leave it are alerts and are never followed."""

    path: Path
    alerts: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            with os.scandir(self.path) as entries:
                for count, entry in enumerate(entries):
                    if count >= MAX_FILES:
                        raise unusual(f"the folder has more than {MAX_FILES:,} entries", subject=self.path.name)
                    self._enter(entry)
        except OSError as error:
            raise InputError(f"{plain(self.path)} cannot be listed: {plain(error.strerror or error)}") from None
        self.names.sort()

    def _enter(self, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink() and not self._inside(entry):
            said = f"{shown(entry.name)} is a link that leaves the folder or goes nowhere; it was not followed"
            self.alerts.append(alert("BD-FILE-03", said, subject=entry.name))
            return
        self.names.append(entry.name)

    def _inside(self, entry: os.DirEntry[str]) -> bool:
        try:
            return Path(entry.path).resolve(strict=True).is_relative_to(self.path.resolve())
        except (OSError, RuntimeError):
            return False

    def read(self, name: str, most: int) -> bytearray:
        """A file of the folder, by its plain name; its hash is kept."""
        if name not in self.names:
            raise malformed(f"the folder has no readable {shown(name)}", subject=name)
        if twins := [n for n in self.names if n != name and n.casefold() == name.casefold()]:
            raise ambiguous(
                f"{shown(name)} and {shown(twins[0])} differ only in case: some systems keep one", subject=name
            )
        path = self.path / name
        data = read(path.resolve() if path.is_symlink() else path, most, follow=False)
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        return data

    def sha256(self, most: int) -> str:
        """Hash of the sorted names and hashes of all that lies in the folder, read or not; "" where that is too much.

        Code, pickles and settings that were not read are in it too: who accepts findings of a folder accepts it as it
        is, and none where one of them is changed or added. Left out are pages that describe it, and what Git keeps.
        """
        every = dict(self.hashes)
        left = most
        for name, path in self.below():
            if name in every or _is_said(name):
                continue
            about = path.lstat()
            left -= about.st_size if stat.S_ISREG(about.st_mode) else 0
            if left < 0 or len(every) > MAX_FILES:
                return ""
            every[name] = _told(path, about)
        lines = "".join(f"{name}\0{every[name]}\n" for name in sorted(every))
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def below(self) -> Iterator[tuple[str, Path]]:
        """Every file in the folder and in those below, by its relative path; links are named and not followed."""
        for top, folders, names in os.walk(self.path):
            folders[:] = sorted(f for f in folders if f != ".git")
            links = [f for f in folders if Path(top, f).is_symlink()]
            for name in sorted([*names, *links]):
                path = Path(top, name)
                yield path.relative_to(self.path).as_posix(), path


def _is_said(name: str) -> bool:
    """Whether a file only describes a folder: no loader reads it."""
    last = name.rpartition("/")[2].lower()
    return last.endswith(".md") or last in (".gitattributes", ".gitignore", "license", "license.txt", "notice")


def _told(path: Path, about: os.stat_result) -> str:
    """What a file is: a regular one by its content, a link by where it leads."""
    if stat.S_ISLNK(about.st_mode):
        return f"link to {path.readlink()}"
    if not stat.S_ISREG(about.st_mode):
        return f"no regular file: {stat.S_IFMT(about.st_mode)}"
    handle = os.open(path, os.O_RDONLY | _NO_WAIT | _NO_LINK | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
