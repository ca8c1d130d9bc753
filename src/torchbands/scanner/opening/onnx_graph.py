"""ONNX without a protobuf library: enough of the wire format to see what a graph needs before anything runs it.

Field numbers are those of the public schema onnx.proto3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .trouble import malformed, shown, unusual

_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_GRAPH, _OPSET, _FUNCTION = 7, 8, 25
_MAX_DEPTH, _MAX_NODES = 24, 500_000
#: Domains whose operators come with onnxruntime.
DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.training"}

Field = tuple[int, int, int, int]  # number, wire type, start, end (of the payload); a varint's value is in start


@dataclass
class Graph:
    """What the model is made of."""

    operators: Counter[str] = field(default_factory=Counter)
    domains: set[str] = field(default_factory=set)
    external: list[str] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    nodes: int = 0

    def check(self) -> None:
        """Raises Trouble for what would reach outside of the file."""
        if self.external:
            raise unusual(
                f"the ONNX model keeps weights outside of its file, in {shown(self.external[0])}; that is not "
                "followed: save it as one file",
                subject=self.external[0],
            )
        custom = sorted(self.domains - DOMAINS - self.functions)
        if custom:
            raise unusual(
                f"the ONNX model needs operators of {shown(custom[0])}, which a library of its own would run",
                subject=custom[0],
            )


def looks_like(data: bytes | bytearray) -> bool:
    """Whether the bytes begin like an ONNX model: a small version number, then only fields that a model has."""
    if len(data) < 4 or data[0] != 0x08 or not 1 <= data[1] <= 64:
        return False
    seen = set()
    try:
        for number, _, _, _ in _fields(memoryview(data), 0, len(data)):
            seen.add(number)
            if number not in _MODEL_FIELDS:
                return False
    except _CutError as cut:
        return cut.number in _MODEL_FIELDS
    return _GRAPH in seen


class _CutError(Exception):
    """A field that is longer than what is left."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def inspect(data: bytes | bytearray) -> Graph:
    """Read the graph's structure. Raises Trouble when the file is truncated or nested too deeply."""
    graph, view = Graph(), memoryview(data)
    try:
        for number, _, start, end in _fields(view, 0, len(data)):
            if number == _GRAPH:
                _graph(view, start, end, graph, 0)
            elif number == _FUNCTION:
                _function(view, start, end, graph)
    except _CutError:
        raise malformed("the ONNX file is truncated or damaged: a field is longer than what is left") from None
    return graph


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _CutError(-1)
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _CutError(-1)


def _fields(view: memoryview, at: int, end: int) -> Iterator[Field]:
    while at < end:
        key, at = _varint(view, at, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(view, at, end)
            yield number, wire, value, value
            continue
        length, start = (0, at)
        if wire == 2:
            length, start = _varint(view, at, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _CutError(-1)
        if length > end - start:
            raise _CutError(number)
        yield number, wire, start, start + length
        at = start + length


def _text(view: memoryview, start: int, end: int) -> str:
    return bytes(view[start : min(end, start + 500)]).decode("utf-8", "replace")


def _graph(view: memoryview, start: int, end: int, graph: Graph, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise malformed(f"the ONNX graph is nested more than {_MAX_DEPTH} deep")
    for number, wire, a, b in _fields(view, start, end):
        if wire != 2:
            continue
        if number == 1:
            _node(view, a, b, graph, depth)
        elif number == 5:
            _tensor(view, a, b, graph)
        elif number == 15:  # a sparse initializer: values, indices
            for inner, kind, c, d in _fields(view, a, b):
                if inner in (1, 2) and kind == 2:
                    _tensor(view, c, d, graph)


def _node(view: memoryview, start: int, end: int, graph: Graph, depth: int) -> None:
    graph.nodes += 1
    if graph.nodes > _MAX_NODES:
        raise malformed(f"the ONNX graph has more than {_MAX_NODES:,} nodes")
    operator, domain = "", ""
    for number, wire, a, b in _fields(view, start, end):
        if wire != 2:
            continue
        if number == 4:
            operator = _text(view, a, b)
        elif number == 7:
            domain = _text(view, a, b)
        elif number == 5:
            for inner, kind, c, d in _fields(view, a, b):
                if kind == 2 and inner in (5, 10):
                    _tensor(view, c, d, graph)
                elif kind == 2 and inner in (6, 11):
                    _graph(view, c, d, graph, depth + 1)
    graph.operators[operator] += 1
    graph.domains.add(domain)


def _tensor(view: memoryview, start: int, end: int, graph: Graph) -> None:
    place, outside = "", False
    for number, wire, a, b in _fields(view, start, end):
        if number == 14 and wire == 0:
            outside = outside or a == 1
        elif number == 13 and wire == 2:
            outside = True
            pair = {n: _text(view, c, d) for n, kind, c, d in _fields(view, a, b) if kind == 2}
            place = pair.get(2, "") if pair.get(1) == "location" else place
    if outside:
        graph.external.append(place or "?")


def _function(view: memoryview, start: int, end: int, graph: Graph) -> None:
    for number, wire, a, b in _fields(view, start, end):
        if wire == 2 and number == 10:
            graph.functions.add(_text(view, a, b))
        elif wire == 2 and number == 7:
            _node(view, a, b, graph, 0)
