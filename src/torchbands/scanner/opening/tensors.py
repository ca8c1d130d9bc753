"""safetensors in pure Python: the header checked against the bytes that are there, tensors as copies of those bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .limits import MAX_AXES, MAX_HEADER, MAX_NAME, MAX_TENSORS
from .refusal import Refusal, cut_short, malformed, shown

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

#: Name in the format -> (name in torch, bytes per number).
DTYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F64": ("float64", 8),
}


@dataclass(frozen=True)
class Entry:
    """One tensor's place: `begin` and `end` count from the start of the file."""

    dtype: str
    shape: Shape
    begin: int
    end: int


def looks_like(data: bytes | bytearray) -> bool:
    """Whether the bytes begin as a safetensors file does: a length, then a JSON object."""
    return len(data) >= 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 40


def header(data: bytes | bytearray) -> dict[str, Entry]:
    """Every tensor's place, in the order of the header. Raises Refusal where the file contradicts itself,
    Unsupported where it is cut off."""
    if len(data) < 10:
        raise cut_short(f"a safetensors file of {len(data)} bytes has no header")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise malformed(f"the safetensors header claims {length:,} bytes; the most that is read is {MAX_HEADER:,}")
    if length > len(data) - 8:
        raise cut_short(f"the safetensors header has {length:,} bytes, of which {len(data) - 8:,} are there")
    found = _json(bytes(data[8 : 8 + length]))
    notes = found.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise malformed("the safetensors metadata is not a table of texts")
    if len(found) > MAX_TENSORS:
        raise malformed(f"the safetensors header names {len(found):,} tensors; the most is {MAX_TENSORS:,}")
    start = 8 + length
    entries = {name: _entry(name, value, start) for name, value in found.items()}
    at = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            what = "overlaps the one before" if entry.begin < at else "leaves a gap before it"
            raise malformed(f"safetensors: tensor {shown(name)} {what}")
        at = entry.end
    if at > len(data):
        raise cut_short(f"tensors end at byte {at:,}, the file at {len(data):,}")
    if at < len(data):
        raise malformed(f"the safetensors file has bytes after its last tensor: {at:,} of {len(data):,} are tensors")
    return entries


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except Refusal:
        raise
    except RecursionError:
        raise malformed("the safetensors header is nested too deeply") from None
    except ValueError as error:
        raise malformed(f"the safetensors header is no JSON: {shown(str(error), 100)}") from None
    if not isinstance(found, dict):
        raise malformed("the safetensors header is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise malformed(f"the safetensors header has the key {shown(twice)} twice")
    return made


def _refuse(constant: str) -> Any:
    raise malformed(f"the safetensors header holds {constant}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _told(value: object) -> str:
    return shown(tuple(value) if isinstance(value, list) else value, 60)[1:-1]


def _entry(name: str, value: Any, start: int) -> Entry:
    if len(name) > MAX_NAME:
        raise malformed(f"safetensors: the tensor name {shown(name)} has {len(name):,} characters")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise malformed(f"safetensors: tensor {shown(name)} lacks a dtype, a shape or its offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise malformed(f"safetensors: tensor {shown(name)} has the unknown dtype {shown(dtype, 40)}")
    if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(_whole(n) for n in shape):
        raise malformed(f"safetensors: tensor {shown(name)} has the impossible shape {_told(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(n) for n in offsets):
        raise malformed(f"safetensors: tensor {shown(name)} has the impossible offsets {_told(offsets)}")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype][1]:
        raise malformed(
            f"safetensors: tensor {shown(name)} of shape {tuple(shape)} and dtype {dtype} needs "
            f"{math.prod(shape) * DTYPES[dtype][1]:,} bytes, its offsets give it {end - begin:,}"
        )
    return Entry(dtype, tuple(shape), start + begin, start + end)


def tensors(data: bytearray, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The tensors of a file whose header has been checked, as copies."""
    import torch

    made = {}
    for name, entry in entries.items():
        dtype = getattr(torch, DTYPES[entry.dtype][0])
        count = math.prod(entry.shape)
        flat = torch.empty(0, dtype=dtype)
        if count:
            flat = torch.frombuffer(bytearray(memoryview(data)[entry.begin : entry.end]), dtype=dtype)
        made[name] = flat.view(entry.shape)
    return made
