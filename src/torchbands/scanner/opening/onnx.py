"""ONNX as a black box: onnxruntime runs in a limited child process and answers with probabilities only."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Batch
from torchbands.core.errors import BandsError, InputError, MissingExtra
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.modalities.image import Image
from torchbands.networks.layers import Normalize

from . import onnx_graph
from .limits import MAX_CLASSES, MAX_EDGE, MB, Limits
from .onnx_wire import Pieces
from .private import Private
from .process import Child, TooLong
from .trouble import listed, malformed, plain, shown
from .weights import State

_FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_WHOLE = {"tensor(int64)": "int64", "tensor(int32)": "int32"}
_CONTROL = ("If", "Loop", "Scan")
#: Bytes that are held for each number of a batch: the rows, their padding, what is sent and what the child reads.
_HELD = 16
#: Fewest rows by which logits and probabilities are told apart.
_PROBE = 8


def from_onnx(
    data: bytearray,
    state: State,
    limits: Limits,
    modality: Modality | None,
    classes: int | None,
    likely: int | None,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
) -> Model:
    """A black box over the graph. Raises Trouble for external data, foreign operators and damage."""
    state.format = "onnx"
    graph = onnx_graph.inspect(data)
    state.facts |= {"nodes": graph.nodes, "operators": dict(graph.operators.most_common(20))}
    if control := [name for name in _CONTROL if graph.operators[name]]:
        state.facts["control_flow"] = control
    graph.check()
    for package in ("onnxruntime", "numpy"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "onnx")
    box = Box(graph.rebuilt, limits, mean, std)
    try:
        modality = modality or box.modality()
        state.facts |= {"input": box.told, "black_box": "it runs in a process of its own; only its answers are seen"}
        found = box.probe(modality, classes, likely)
    except BaseException:
        box.stop()  # at once, and not when the error is forgotten
        raise
    state.facts |= {"classes": found, "outputs_are": "probabilities" if box.probabilities else "logits"}
    return Model.black_box(box, modality, found)


class Box:
    """A session in a child process, called with raw batches: (N, ...) -> (N, K) probabilities."""

    probabilities = False

    def __init__(
        self,
        pieces: Pieces,
        limits: Limits,
        mean: float | Sequence[float] | None,
        std: float | Sequence[float] | None,
    ) -> None:
        self.limits, self.mean, self.std = limits, mean, std
        self.folder = folder = Private()
        with (folder / "suspect.onnx").open("wb") as file:
            file.writelines(pieces)
        self.child = Child("onnx", folder, limits)
        try:
            about = self.child.ask({"file": str(folder / "suspect.onnx"), "threads": torch.get_num_threads()})
            inputs, outputs = about["inputs"], about["outputs"]
            if len(inputs) != 1 or not outputs:
                raise InputError(f"an ONNX model of one input is expected, got {listed(i['name'] for i in inputs)}")
        except BaseException:
            self.stop()
            raise
        self.input, self.outputs = inputs[0], outputs
        self.output = outputs[0]["name"]
        kind = self.input["type"]
        self.dtype = _FLOATS.get(kind) or _WHOLE.get(kind) or ""
        self.told = {"type": kind, "shape": [plain(d) for d in self.input["shape"]]}
        if not self.dtype:
            raise InputError(f"the ONNX model reads {shown(kind)}, expected numbers")
        first = (self.input["shape"] or [None])[0]
        self.rows = first if isinstance(first, int) and first > 0 else 0
        fixed = [n for n in self.input["shape"] if isinstance(n, int) and n > 0]
        if _HELD * math.prod(fixed) > limits.bytes:  # in Python's numbers, which do not overflow
            self.stop()
            raise malformed(
                f"one batch of the ONNX model has shape {self.told['shape']}, which needs "
                f"{_HELD * math.prod(fixed) / MB:,.0f} MB; the limit is {limits.megabytes:,} MB"
            )

    def stop(self) -> None:
        """End the process and remove its folder."""
        self.child.stop()
        self.folder.close()

    def modality(self) -> Modality:
        """Images where the input says their size."""
        shape = self.input["shape"]
        if len(shape) == 4 and any(isinstance(n, int) and n > MAX_EDGE for n in shape[1:]):
            raise malformed(f"the ONNX input {self.told['shape']} is larger than an image of {MAX_EDGE} x {MAX_EDGE}")
        if len(shape) == 4 and all(isinstance(n, int) for n in shape[1:]) and shape[2] == shape[3] and shape[1] <= 4:
            return Image(channels=shape[1], size=shape[2])
        raise InputError(
            f"the ONNX input {self.told['shape']} does not say what it is",
            hint="pass modality=Image(channels=3, size=32), or --data with a few of its inputs",
        )

    def probe(self, modality: Modality, classes: int | None, likely: int | None = None) -> int:
        """Find the output with class scores and whether it holds logits or probabilities; the number of classes."""
        self.encode = modality.encode
        for output in self.outputs:
            if output["type"] not in _FLOATS:
                continue
            self.output = output["name"]
            found = self.raw(modality.random(_PROBE, torch.Generator().manual_seed(0)))
            wanted = classes or likely
            if found.ndim == 2 and (
                found.shape[1] == wanted if wanted and len(self.outputs) > 1 else found.shape[1] >= 2
            ):
                break
        else:
            raise InputError("no output of the ONNX model is (N, classes) numbers: it is no classifier")
        if found.shape[1] > MAX_CLASSES or (classes is not None and found.shape[1] != classes):
            raise InputError(f"the ONNX model has {found.shape[1]:,} classes, given: {classes or 'none'}")
        sums = found.sum(1)
        self.probabilities = bool((found >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
        return int(found.shape[1])

    def __call__(self, batch: Batch) -> Tensor:
        found = self.raw(batch)
        return found if self.probabilities else found.softmax(1)

    def raw(self, batch: Batch) -> Tensor:
        """(N, K) float32 of a raw batch."""
        x = self.encode(batch).values.cpu()
        if self.mean is not None or self.std is not None:
            x = Normalize(x.shape[1], 0.0 if self.mean is None else self.mean, self.std or 1.0, x.ndim)(x)
        x = x.to(getattr(torch, self.dtype)).contiguous()
        if not self.rows:
            return self._run(x)
        parts = [self._run(_padded(part, self.rows))[: len(part)] for part in x.split(self.rows)]
        return torch.cat(parts)

    def _run(self, x: Tensor) -> Tensor:
        raw = x.numpy().tobytes()
        job: dict[str, Any] = {"shape": list(x.shape), "dtype": self.dtype, "bytes": len(raw)}
        seconds = self.limits.seconds
        try:
            with self.child.deadline(seconds):
                self.child.send({**job, "input": self.input["name"], "output": self.output}, raw)
            reply = self.child.line(seconds)
            if "error" in reply:
                raise InputError(f"the ONNX model does not take {tuple(x.shape)}: {shown(reply['error'], 200)}")
            shape = tuple(int(n) for n in reply["shape"])
            if not shape or shape[0] != len(x) or math.prod(shape) > len(x) * MAX_CLASSES:
                raise InputError(f"the ONNX model gives {shape} for {len(x)} rows, expected (rows, classes)")
            answer = bytearray(self.child.raw(4 * math.prod(shape), seconds))
        except TooLong:
            raise BandsError(
                f"the ONNX model took longer than {seconds:g} s for {len(x)} rows and was stopped",
                hint="raise it: --time-limit S, or Limits(seconds=...)",
            ) from None
        except EOFError:
            raise BandsError("the process of the ONNX model died (memory or time limit)") from None
        if len(answer) != 4 * math.prod(shape):
            raise BandsError("the process of the ONNX model died while it answered")
        return torch.frombuffer(answer, dtype=torch.float32).view(shape) if answer else torch.zeros(shape)


def _padded(x: Tensor, rows: int) -> Tensor:
    return x if len(x) == rows else torch.cat([x, x[-1:].expand(rows - len(x), *x.shape[1:])]).contiguous()
