"""Atomic writing of files and folders."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchbands.core.errors import BandsError
from torchbands.core.words import shown

#: A larger card, record or grid is not read.
MOST_JSON = 256 << 20


def sha256(path: Path) -> str:
    """Hex digest of a regular file."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turn a full disk into a readable error; files finished earlier stay intact."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BandsError(
                f"the disk is full: could not write {path}",
                hint="free some space and run the same command again; finished work is kept",
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Raises OSError where it cannot be written, or where something else than a file lies there.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file that is flushed to disk and takes the final name when the block ends well, and vanishes when it
    does not. A kill leaves the old file or the new one.

    Raises OSError where it cannot be written, or where something else than a file lies there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and not path.is_file():
        raise OSError(errno.EEXIST, "something that is not a file lies there", str(path))
    with full_disk_told(path):
        handle, name = tempfile.mkstemp(prefix=prefix(path), suffix=".tmp", dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            with Path(name).open("r+b") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.[a-z0-9_]+(\.old)?\.tmp")


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Hold a lock on a folder during the block. Raises BandsError if another process holds it.

    The lock belongs to the process: it ends with it, however that ends.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BandsError(
            f"{what} {shown(folder)} is in use: another process is at work in it",
            hint="wait until it has ended and run the same command again, which then goes on; or name another folder",
        ) from None
    try:
        for place in (folder, *(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())):
            sweep(place)
        yield
    finally:
        lock.release()


def prefix(path: Path) -> str:
    """How temporary names of a path begin: with the process that writes, so that a dead one's are known."""
    return f".{path.name}.{os.getpid()}."


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a folder under temporary names (of a `name`, or of any); an old folder that
    one had moved aside goes back, where nothing else has taken its place."""
    for left in sorted(folder.glob(f".{glob.escape(name) if name else '*'}.*.tmp")):
        found = _TEMPORARY.fullmatch(left.name)
        if found is None or name not in (None, found[1]) or left.is_symlink() or _alive(int(found[2])):
            continue
        if found[3] and not (folder / found[1]).exists():
            left.replace(folder / found[1])
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process runs here. Folders that several machines share are swept by none but the one that wrote."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """A regular file. A pipe or a device, which may never end, is an OSError, and so is a file longer than `most`."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if most is not None and facts.st_size > most:
            raise OSError(errno.EFBIG, f"{facts.st_size:,} bytes, more than {most:,}", str(path))
        return file.read()


def read_text(path: Path, most: int | None = MOST_JSON) -> str:
    """A regular file of UTF-8."""
    return read_bytes(path, most).decode("utf-8")
