"""ONNX without a protobuf library: enough of the wire format to see what a graph needs before anything runs it.

Field numbers are those of the public schema onnx.proto3.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .onnx_wire import CutError, Field, Pieces, fields, message, written
from .refusal import Refusal, cut_short, malformed, shown, unusual

_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_GRAPH = 7
_MAX_DEPTH, _MAX_NODES = 24, 500_000
#: Domains whose operators come with onnxruntime.
DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.training"}

#: Message -> its fields that are kept: the kind of message that each holds, or "" for what holds no tensor. What is not
#: listed (training, devices, notes, places of external data) is not handed on.
_KEPT: dict[str, dict[int, str]] = {
    "model": {**dict.fromkeys((1, 2, 3, 4, 5, 8), ""), 7: "graph", 25: "function"},
    "graph": {1: "node", **dict.fromkeys((2, 11, 12, 13), ""), 5: "tensor", 15: "sparse"},
    "function": {**dict.fromkeys((1, 4, 5, 6, 9, 10, 12, 13), ""), 7: "node", 11: "attribute"},
    "node": {**dict.fromkeys((1, 2, 3, 4, 7, 8), ""), 5: "attribute"},
    "attribute": {
        **dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 14, 15, 20, 21), ""),
        **{5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    },
    "tensor": dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9, 10, 11), ""),
    "sparse": {1: "tensor", 2: "tensor", 3: ""},
}
#: Operators that change no number.
_MOVING = {
    "Identity",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Transpose",
    "Cast",
    "Dropout",
    "Concat",
    "Split",
} | {*("Slice", "Gather", "Expand", "Tile", "Pad")}
#: Operators that read files of their own.
_READERS = {"EPContext", "TensorRTEngineOp"}
#: Fields that hold numbers, which may stand alone (without a length).
_NUMBERS = {"tensor": {1, 2, 4, 5, 7, 10, 11}, "attribute": {2, 3, 7, 8, 20}, "sparse": {3}, "model": {1, 5}}


@dataclass
class Graph:
    """What the model is made of."""

    operators: Counter[str] = field(default_factory=Counter)
    domains: set[str] = field(default_factory=set)
    external: list[str] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    nodes: int = 0
    makers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of each value of the main graph, the operator that makes it and what this reads first."""
    rebuilt: Pieces = field(default_factory=list)
    """The model written anew: what was looked at, and nothing else."""

    def operator_of(self, value: str) -> str:
        """The operator that computes a value, whatever moves it afterwards; "" where that is not known."""
        for _ in range(_MAX_NODES):
            name, source = self.makers.get(value, ("", ""))
            if name not in _MOVING or not source:
                return "" if name in _MOVING else name
            value = source
        return ""

    def check(self) -> None:
        """Raises Refusal for what would reach outside of the file."""
        if self.external:
            raise unusual(
                f"the ONNX model keeps weights outside of its file, in {shown(self.external[0])}; that is not "
                "followed: save it as one file",
                subject=self.external[0],
            )
        if readers := sorted(_READERS & set(self.operators)):
            raise unusual(f"the ONNX model has the operator {readers[0]}, which reads other files", subject=readers[0])
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
        for number, _, _, _ in fields(memoryview(data), 0, len(data)):
            seen.add(number)
            if number not in _MODEL_FIELDS:
                return False
    except CutError as cut:
        return cut.number in _MODEL_FIELDS
    except Refusal:  # a tag that is spelt oddly: of a model, or of another format that begins with these two bytes
        return len(seen) > 1
    return _GRAPH in seen


def inspect(data: bytes | bytearray) -> Graph:
    """Read the graph's structure. Raises Refusal when it is nested too deeply, Unsupported when it is cut off."""
    graph, view = Graph(), memoryview(data)
    try:
        graph.rebuilt = _message("model", view, 0, len(data), graph, 0)
    except CutError:
        raise cut_short("a field of the ONNX file is longer than what is left of it") from None
    return graph


def _message(kind: str, view: memoryview, start: int, end: int, graph: Graph, depth: int) -> Pieces:
    """A message written anew, with only the fields that are known; what it holds is counted on the way."""
    if depth > _MAX_DEPTH:
        raise malformed(f"the ONNX graph is nested more than {_MAX_DEPTH} deep")
    kept, made, texts = _KEPT[kind], list[bytes | memoryview](), dict[int, str]()
    results: list[str] = []
    outside, place = False, ""
    for found in fields(view, start, end):
        number, wire, a, b = found
        if kind == "tensor" and number in (13, 14):
            outside = outside or number == 13 or wire != 0 or a != 0
            place = _location(view, found) or place
        inner = kept.get(number)
        if inner is None:
            continue
        if wire != 2 and number not in _NUMBERS.get(kind, ()):
            raise malformed(f"the ONNX file has a number where field {number} of a {kind} is text")
        if inner:
            made += message(number, _message(inner, view, a, b, graph, depth + (inner == "graph")))
            continue
        made += written(view, found)
        if wire == 2 and number in (4, 7, 10):
            texts[number] = _text(view, a, b)
        if kind == "node" and depth == 1 and wire == 2 and number in (1, 2):
            if number == 2:
                results.append(_text(view, a, b))
            else:
                texts.setdefault(number, _text(view, a, b))
    if outside:
        graph.external.append(place or "?")
    if kind == "function":
        graph.functions.add(texts.get(10, ""))
    if kind == "node":
        graph.nodes += 1
        if graph.nodes > _MAX_NODES:
            raise malformed(f"the ONNX graph has more than {_MAX_NODES:,} nodes")
        graph.operators[texts.get(4, "")] += 1
        graph.domains.add(texts.get(7, ""))
        graph.makers |= dict.fromkeys(results, (texts.get(4, ""), texts.get(1, "")))
    return made


def _location(view: memoryview, found: Field) -> str:
    """Where a tensor's external data lie, as it says."""
    number, wire, a, b = found
    if number != 13 or wire != 2:
        return ""
    pair = {n: _text(view, c, d) for n, kind, c, d in fields(view, a, b) if kind == 2}
    return pair.get(2, "") if pair.get(1) == "location" else ""


def _text(view: memoryview, start: int, end: int) -> str:
    return bytes(view[start : min(end, start + 500)]).decode("utf-8", "replace")
