"""Cost measurement: wall and CPU seconds, peak memory, forward passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from torchbands.core.metric import Undefined, Value
from torchbands.core.model import Model
from torchbands.core.passes import Charge, precision

_UNTOLD = Undefined("this system does not tell a process its peak memory")
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(eq=False)
class Cost:
    """Filled in when the measured block ends. Memory is the process's peak (a GPU's, where the model is on one)."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: Value = Undefined("not measured yet")
    forward_passes: int = 0
    dtypes: set[str] = field(default_factory=set)
    _before: float = 0.0

    @property
    def precision(self) -> str | None:
        """Precision in which the forward passes were actually computed; None if there were none."""
        return precision(self.dtypes)

    def values(self) -> dict[str, Value]:
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_mb": self.peak_mb,
            "forward_passes": float(self.forward_passes),
        }


#: The blocks that are being measured now, outermost first: one process has one peak, which each of them resets.
_OPEN: list[Cost] = []


@contextmanager
def measured(model: Model | None = None) -> Iterator[Cost]:
    """Measure a block; forward passes are rows sent through `model` and its clones.

    A pass that another made and that is used here (`Model.shared`) is charged once, with its seconds: what something
    costs does not depend on who came before.
    """
    cost = Cost()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()
    for outer in _OPEN:
        outer._before = _highest(outer, on_gpu)
    _OPEN.append(cost)
    torch.cuda.reset_peak_memory_stats() if on_gpu else _reset_peak()
    passes = model.passes.forward if model is not None else 0
    wall, cpu = time.perf_counter(), time.process_time()
    charge = Charge()
    try:
        with nullcontext(charge) if model is None else model.passes.user() as charge:
            yield cost
    finally:
        if on_gpu:
            torch.cuda.synchronize()
        cost.seconds = time.perf_counter() - wall + charge.seconds
        cost.cpu_seconds = time.process_time() - cpu + charge.cpu_seconds
        cost.dtypes = charge.dtypes
        peak = _highest(cost, on_gpu)
        cost.peak_mb = peak if on_gpu or peak else _UNTOLD
        cost.forward_passes = model.passes.forward - passes + charge.forward if model is not None else 0
        _OPEN.remove(cost)


def _highest(cost: Cost, on_gpu: bool) -> float:
    """Peak memory in MB since the block began; 0 if the system does not report it."""
    now = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak()
    return max(cost._before, now)


def _reset_peak() -> None:
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _peak() -> float:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
