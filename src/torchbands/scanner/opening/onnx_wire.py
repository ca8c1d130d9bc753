"""Protobuf's wire format, read strictly: each message has one reading, whichever parser reads it."""

from __future__ import annotations

from collections.abc import Iterator

from .refusal import malformed

Field = tuple[int, int, int, int]  # number, wire type, start, end (of the payload); a varint's value is in start
#: Pieces of a message that is written anew.
Pieces = list[bytes | memoryview]


class CutError(Exception):
    """A field that is longer than what is left, or that no protobuf writer makes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise CutError(-1)
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise CutError(-1)


def fields(view: memoryview, at: int, end: int) -> Iterator[Field]:
    """Every field. A tag has one spelling: longer ones, which parsers cut to 32 bits, are refused."""
    while at < end:
        begin = at
        key, at = varint(view, at, end)
        number, wire = key >> 3, key & 7
        if at - begin != len(number_of(key)) or not 0 < number < 1 << 29:
            raise malformed(
                "the ONNX file spells a field's number in a way that parsers read differently", level="high"
            )
        if wire == 0:
            value, at = varint(view, at, end)
            yield number, wire, value, value
            continue
        length, start = 0, at
        if wire == 2:
            length, start = varint(view, at, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise CutError(-1)
        if length > end - start:
            raise CutError(number)
        yield number, wire, start, start + length
        at = start + length


def number_of(value: int) -> bytes:
    """A varint in its one shortest form."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def written(view: memoryview, field: Field) -> Pieces:
    """A field as it is, with its tag and length spelt anew."""
    number, wire, start, end = field
    tag = number_of(number << 3 | wire)
    if wire == 0:
        return [tag + number_of(start)]
    return [tag + number_of(end - start) if wire == 2 else tag, view[start:end]]


def message(number: int, pieces: Pieces) -> Pieces:
    """A message as a field of another."""
    return [number_of(number << 3 | 2) + number_of(sum(map(len, pieces))), *pieces]
