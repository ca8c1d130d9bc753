"""A zip archive that every reader reads alike.

Zip readers disagree where an archive is ambiguous: which end record counts, whether the zip64 record is taken from
where its locator points or from before it, whether names differ by case, whether bytes before the archive shift its
offsets. What one reader scans is then not what another loads. So everything that readers could take in two ways is
refused here, before any of them is asked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .refusal import ambiguous, cut_short, malformed, shown

_END, _LOCATOR, _END64, _ENTRY, _LOCAL = (b"PK" + bytes(n) for n in ((5, 6), (6, 7), (6, 6), (1, 2), (3, 4)))
_UNSET16, _UNSET32 = 0xFFFF, 0xFFFFFFFF
#: Extra fields: 64-bit sizes, and another name for the entry, which some readers prefer.
_ZIP64, _UNICODE_NAME = 0x0001, 0x7075
#: Among an entry's attributes.
_FOLDER = 0x10


@dataclass(frozen=True)
class Place:
    """An entry of the directory, as its bytes have it."""

    name: bytes
    packed: int
    size: int
    offset: int


def places(data: bytes | bytearray) -> list[Place]:
    """The entries in the directory's order. Raises Refusal where two readers could see two archives, Unsupported
    for one that is cut off."""
    count, size, start, end = _directory(data)
    if start + size != end:
        raise ambiguous("the zip directory is not where its end record says: readers would look in two places")
    found, at = [], start
    for _ in range(count):
        place, at = _entry(data, at, end)
        found.append(place)
    if at != end:
        raise ambiguous(f"the zip directory holds more than the {count:,} entries that its end record counts")
    _once(found)
    _apart(data, found, start)
    return found


def _directory(data: bytes | bytearray) -> tuple[int, int, int, int]:
    """(entries, size, start, end) of the directory, from the end record and its zip64 twin."""
    end = len(data) - 22
    if end < 0 or data[end : end + 4] != _END:
        if data.rfind(_END) >= 0:
            raise ambiguous(
                "the zip archive has bytes or a comment after its end record: readers look for it elsewhere"
            )
        raise cut_short("the zip archive has no end record")
    disk, first, here, count, size, start, comment = struct.unpack_from("<4H2LH", data, end + 4)
    if comment:
        raise ambiguous("the zip archive's end record promises a comment that is not there")
    if disk or first or here != count:
        raise malformed("the zip archive claims to lie on several disks")
    at = end - 20
    if at < 0 or data[at : at + 4] != _LOCATOR:
        if count == _UNSET16 or _UNSET32 in (size, start):
            raise ambiguous("the zip archive needs a zip64 record and has no locator of one")
        return count, size, start, end
    on, place, disks = struct.unpack_from("<LQL", data, at + 4)
    record = at - 56
    if on or disks > 1 or place != record or record < 0 or data[record : record + 4] != _END64:
        raise ambiguous(
            "the zip64 locator points elsewhere than to the record before it: readers take one or the other"
        )
    length, _, _, disk, first, here, many, long, begin = struct.unpack_from("<Q2H2L4Q", data, record + 4)
    if length != 44 or disk or first or here != many:
        raise ambiguous("the zip64 record has not the form that every reader expects")
    for small, large, unset in ((count, many, _UNSET16), (size, long, _UNSET32), (start, begin, _UNSET32)):
        if small not in (large, unset):
            raise ambiguous("the two end records of the zip archive contradict each other")
    return many, long, begin, record


def _entry(data: bytes | bytearray, at: int, end: int) -> tuple[Place, int]:
    if at + 46 > end or data[at : at + 4] != _ENTRY:
        raise ambiguous("the zip directory holds fewer entries than its end record counts")
    packed, size, name, extra, comment, disk = struct.unpack_from("<2L4H", data, at + 20)
    marks, offset = struct.unpack_from("<2L", data, at + 38)
    middle = at + 46 + name
    after = middle + extra + comment
    if after > end:
        raise malformed("the zip directory is cut off within an entry")
    raw = bytes(data[at + 46 : middle])
    longer = _extra(bytes(data[middle : middle + extra]), raw)
    given = [size, packed, offset]
    wanted = [i for i, value in enumerate(given) if value == _UNSET32]
    if len(longer) < len(wanted) or disk:
        raise malformed(f"the zip entry {shown(raw.decode('utf-8', 'replace'))} lacks its 64-bit sizes")
    for i, value in zip(wanted, longer):
        given[i] = value
    if given[0] and (marks & _FOLDER or raw.endswith((b"/", b"\\"))):  # torch then leaves its numbers unread
        raise ambiguous(f"the zip entry {shown(raw.decode('utf-8', 'replace'))} is marked as a folder and has contents")
    return Place(raw, given[1], given[0], given[2]), after


def _extra(raw: bytes, name: bytes) -> tuple[int, ...]:
    """The numbers of the zip64 field."""
    found: tuple[int, ...] | None = None
    while len(raw) >= 4:
        kind, length = struct.unpack_from("<2H", raw)
        if length > len(raw) - 4:
            break
        body, raw = raw[4 : 4 + length], raw[4 + length :]
        if kind == _UNICODE_NAME or (kind == _ZIP64 and found is not None):
            raise ambiguous(f"the zip entry {shown(name.decode('utf-8', 'replace'))} gives its name or sizes twice")
        if kind == _ZIP64:
            found = struct.unpack_from(f"<{len(body) // 8}Q", body)
    return found or ()


def _once(found: list[Place]) -> None:
    """No two entries of one name; some readers look names up without regard to case, and take \\ for /."""
    seen: dict[bytes, bytes] = {}
    for place in found:
        key = place.name.lower().replace(b"\\", b"/")
        if key in seen:
            said = shown(place.name.decode("utf-8", "replace"))
            if seen[key] == place.name:
                raise ambiguous(f"the zip archive has two entries named {said}: readers take the first or the last")
            raise ambiguous(f"the zip archive has two entries that differ only in case, such as {said}")
        seen[key] = place.name


def _apart(data: bytes | bytearray, found: list[Place], directory: int) -> None:
    """Every entry lies before the directory and ends before the next begins."""
    before = 0
    for place in sorted(found, key=lambda p: p.offset):
        at, said = place.offset, shown(place.name.decode("utf-8", "replace"))
        if at < before:
            raise malformed(f"the zip entries overlap: {said} begins within the one before")
        if at + 30 > directory or data[at : at + 4] != _LOCAL:
            raise malformed(f"the zip entry {said} does not begin where the directory says")
        name, extra = struct.unpack_from("<2H", data, at + 26)
        if bytes(data[at + 30 : at + 30 + name]) != place.name:
            raise ambiguous(f"the zip entry {said} has another name where it begins than in the directory")
        before = at + 30 + name + extra + place.packed
        if before > directory:
            raise malformed(f"the zip entry {said} runs into the directory")
