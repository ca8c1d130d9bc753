"""Zip archives: what they contain is checked from the directory before an entry is read."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from .limits import MAX_ENTRIES, MAX_NAME, MAX_RATIO, MB, Limits
from .refusal import ambiguous, malformed, shown, unusual
from .zip_directory import places

MAGIC = b"PK\x03\x04"
_EMPTY = b"PK\x05\x06"
#: What the zip reader raises over a damaged archive: its own error, and what slips through its own parsing.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError),
    *(IndexError, NotImplementedError, RuntimeError),
)


def looks_like(data: bytes | bytearray) -> bool:
    return data.startswith((MAGIC, _EMPTY))


@dataclass
class Archive:
    """A checked archive. `root` is the folder that holds data.pkl, with its slash; None where there is none."""

    zip: zipfile.ZipFile
    names: tuple[str, ...]
    root: str | None

    @property
    def scripted(self) -> bool:
        """Whether it is TorchScript: it has code or constants beside its data."""
        r = self.root or ""
        return any(n == f"{r}constants.pkl" or n.startswith(f"{r}code/") for n in self.names)

    def read(self, name: str, most: int) -> bytes:
        """One entry. Raises Refusal when it is damaged or too long."""
        info = self.zip.getinfo(name)
        if info.file_size > most:
            raise malformed(f"{shown(name)} in the archive has {info.file_size:,} bytes; the most is {most:,}")
        try:
            return self.zip.read(info)
        except _DAMAGE as e:
            raise malformed(f"{shown(name)} in the archive is damaged: {shown(str(e), 100)}") from None

    def repack(self, to: Path, most: int) -> None:
        """Write what torch needs for tensors to a fresh archive: one parser has seen it, and only it decides."""
        root = self.root or ""
        wanted = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/version")
        with zipfile.ZipFile(to, "w") as out:
            for name in self.names:
                tail = name.removeprefix(root)
                if name.startswith(root) and (tail in wanted or tail.startswith(("data/", "constants/"))):
                    out.writestr(f"archive/{tail}", self.read(name, most))

    def strange(self) -> list[str]:
        """Entries that no torch file has; archives inside the archive first."""
        root = self.root or ""
        usual = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", "constants.pkl")
        folders = ("data/", "constants/", "code/", "extra/", ".data/", "traced_inputs/", "traced_inputs.pkl")
        odd = [
            n
            for n in self.names
            if not n.endswith("/") and not (n.startswith(root) and n[len(root) :].startswith((*usual, *folders)))
        ]
        nested = [n for n in odd if n.lower().endswith((".zip", ".pt", ".pth", ".whl", ".gz", ".tar"))]
        return [*nested, *(n for n in odd if n not in nested)]


def opened(data: bytes | bytearray, limits: Limits) -> Archive:
    """Check an archive's directory. Raises Refusal for bombs, paths that leave, links, and contradictions."""
    directory = places(data)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except _DAMAGE as error:
        raise malformed(f"the zip archive is damaged: {shown(str(error), 100)}") from None
    if len(entries) > MAX_ENTRIES:
        raise malformed(f"the zip archive has {len(entries):,} entries; the most is {MAX_ENTRIES:,}")
    for entry in entries:
        _check(entry)
    read = [(e.compress_size, e.file_size, e.header_offset) for e in entries]
    if read != [(p.packed, p.size, p.offset) for p in directory]:
        raise ambiguous("the zip archive reads in two ways: two readers find other entries in its directory")
    total, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if packed > len(data):
        raise malformed(f"the zip entries overlap: they claim {packed:,} bytes of a file of {len(data):,}")
    if total > limits.bytes:
        raise malformed(
            f"the zip archive unpacks to {total / MB:,.0f} MB; the limit is {limits.megabytes:,} MB (a zip bomb?)"
        )
    names = [e.filename for e in entries]
    roots = [n.removesuffix("data.pkl") for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
    if len(roots) > 1:
        raise ambiguous(f"the zip archive has {len(roots)} entries named data.pkl; a torch file has one")
    if roots and roots[0] != f"{names[0].split('/')[0]}/":  # torch takes the folder of the first entry, and that alone
        raise ambiguous(f"data.pkl lies in {shown(roots[0])}, where torch does not look: the first entry decides")
    return Archive(archive, tuple(names), roots[0] if roots else None)


def _check(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0] or "\0" in entry.orig_filename:
        raise unusual(f"the zip archive has a path that leaves its folder: {shown(name)}", subject=name)
    if len(name) > MAX_NAME:
        raise malformed(f"the zip archive has an entry name of {len(name):,} characters: {shown(name)}")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise unusual(f"the zip archive holds a link: {shown(name)}", subject=name)
    if entry.flag_bits & 0x1:
        raise malformed(f"the zip entry {shown(name)} is encrypted", subject=name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise malformed(
            f"the zip entry {shown(name)} has the compression {entry.compress_type}, which torch never uses"
        )
    if entry.file_size > MB and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        raise malformed(
            f"the zip entry {shown(name)} unpacks {entry.compress_size:,} bytes to {entry.file_size:,} (a zip bomb?)",
            subject=name,
        )
