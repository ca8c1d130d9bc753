"""An onnxruntime session in a child process: tensors in, tensors out, within limits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torchbands.core.errors import BandsError, InputError, Unsupported

from .limits import MAX_CLASSES, MB, Limits
from .onnx_wire import Pieces
from .private import Private
from .process import Child, TooLong
from .refusal import listed, malformed, plain, shown

_FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_WHOLE = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}
#: Bytes that are held for each number of a batch: the rows, their padding, what is sent and what the child reads.
_HELD = 16


class Session:
    """A model in a process of its own.

    Attributes:
        shape: of its one input; whole: whether this reads whole numbers. told: type and shape, JSON-ready.
        outputs: names of those that hold floating-point numbers; others: of the rest, with their types.
        rows: how many go in at once, where the model fixes it (0: any number).
    """

    def __init__(self, pieces: Pieces, limits: Limits) -> None:
        self.limits = limits
        self.folder = folder = Private()
        with (folder / "suspect.onnx").open("wb") as file:
            file.writelines(pieces)
        self.child = Child("onnx", folder, limits)
        try:
            about = self.child.ask({"file": str(folder / "suspect.onnx"), "threads": torch.get_num_threads()})
            self._read(about["inputs"], about["outputs"])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process and remove its folder."""
        self.child.stop()
        self.folder.close()

    def _read(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        if len(inputs) != 1 or not outputs:
            raise InputError(
                f"an ONNX model of one input is expected, got {listed(i['name'] for i in inputs)}",
                hint="export it with one input; texts are best scanned from their Hugging Face folder",
            )
        self.input, kind, self.shape = inputs[0]["name"], inputs[0]["type"], inputs[0]["shape"]
        self.outputs = [o["name"] for o in outputs if o["type"] in _FLOATS]
        self.others = [f"{o['name']}: {o['type']}" for o in outputs if o["type"] not in _FLOATS]
        self.dtype, self.whole = _FLOATS.get(kind) or _WHOLE.get(kind) or "", kind in _WHOLE
        self.told = {"type": kind, "shape": [plain(d) for d in self.shape]}
        if not self.dtype:
            raise Unsupported(
                f"the ONNX model reads {shown(kind)}, expected floats, bytes or whole numbers",
                hint="what a number of another type means (its scale, its zero) is not in the file: export it with "
                "float inputs",
            )
        first = (self.shape or [None])[0]
        self.rows = first if isinstance(first, int) and first > 0 else 0
        fixed = [n for n in self.shape if isinstance(n, int) and n > 0]
        if _HELD * math.prod(fixed) > self.limits.bytes:  # in Python's numbers, which do not overflow
            raise malformed(
                f"one batch of the ONNX model has shape {self.told['shape']}, which needs "
                f"{_HELD * math.prod(fixed) / MB:,.0f} MB; the limit is {self.limits.megabytes:,} MB"
            )

    def run(self, x: Tensor, output: str) -> Tensor:
        """An output for x, as float32. Of one that is no scores of these rows by its size, NaN of its shape (on no
        device)."""
        x = x.to(getattr(torch, self.dtype)).contiguous()
        if not self.rows:
            return self._run(x, output)
        parts = [self._run(_padded(part, self.rows), output)[: len(part)] for part in x.split(self.rows)]
        return torch.cat(parts)

    def _run(self, x: Tensor, output: str) -> Tensor:
        raw = x.numpy().tobytes()
        job: dict[str, Any] = {"shape": list(x.shape), "dtype": self.dtype, "bytes": len(raw)}
        seconds = self.limits.seconds
        most = 4 * len(x) * MAX_CLASSES
        try:
            with self.child.deadline(seconds):
                self.child.send({**job, "input": self.input, "output": output, "most": most}, raw)
            reply = self.child.line(seconds)
            if "error" in reply:
                raise InputError(f"the ONNX model does not take {tuple(x.shape)}: {shown(reply['error'], 200)}")
            shape = tuple(int(n) for n in reply["shape"])
            size = 4 * math.prod(shape)
            if size > most:
                return torch.empty(shape, device="meta")
            answer = bytearray(self.child.raw(size, seconds))
        except TooLong:
            raise BandsError(
                f"the ONNX model took longer than {seconds:g} s for {len(x)} rows and was stopped",
                hint="raise it: --time-limit S, or Limits(seconds=...)",
            ) from None
        except EOFError:
            raise BandsError("the process of the ONNX model died (memory or time limit)") from None
        if len(answer) != size:
            raise BandsError("the process of the ONNX model died while it answered")
        return torch.frombuffer(answer, dtype=torch.float32).view(shape) if answer else torch.zeros(shape)


def _padded(x: Tensor, rows: int) -> Tensor:
    return x if len(x) == rows else torch.cat([x, x[-1:].expand(rows - len(x), *x.shape[1:])]).contiguous()
