"""Unpacking tar and zip archives that must not write outside their folder."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from torchbands.core.errors import DataUnavailable

SUFFIXES = (".tar.gz", ".tgz", ".zip")
#: Most bytes that an archive may unpack to.
MOST_BYTES = 16 << 30


def is_archive(path: Path) -> bool:
    """True for the archive formats that :func:`unpack` reads."""
    return path.name.endswith(SUFFIXES)


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip archive under ``into``.

    Raises:
        DataUnavailable: the archive is damaged, or a member would land outside ``into`` (an absolute path, ``..``,
            a link that leaves the folder, a device). Nothing after such a member is written.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if archive.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                for name in opened.namelist():
                    _refuse_traversal(archive, name)
                _refuse_large(archive, sum(member.file_size for member in opened.infolist()))
                opened.extractall(into)
        else:
            with tarfile.open(archive) as tar:
                _refuse_large(archive, sum(member.size for member in tar))
                tar.extractall(into, filter="data")
    except tarfile.FilterError as error:
        raise DataUnavailable(f"{archive.name}: refused, a member would leave its folder: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, OverflowError, RuntimeError) as error:
        raise DataUnavailable(f"{archive.name}: not a readable archive: {error}") from error


def _refuse_large(archive: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise DataUnavailable(f"{archive.name}: refused, it holds {size:,} bytes, more than {MOST_BYTES:,}")


def _refuse_traversal(archive: Path, name: str) -> None:
    posix = PurePosixPath(name.replace("\\", "/"))
    if posix.is_absolute() or ".." in posix.parts or ":" in posix.parts[:1]:
        raise DataUnavailable(f"{archive.name}: refused, a member would leave its folder: {name!r}")
