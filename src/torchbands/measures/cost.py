"""What something costs: wall and CPU seconds, peak memory, forward passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from torchbands.core.metric import Undefined, Value
from torchbands.core.model import Model

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Cost:
    """Filled in when the measured block ends. Memory is the process's peak (a GPU's, where the model is on one)."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: Value = Undefined("not measured yet")
    forward_passes: int = 0

    def values(self) -> dict[str, Value]:
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_mb": self.peak_mb,
            "forward_passes": float(self.forward_passes),
        }


@contextmanager
def measured(model: Model | None = None) -> Iterator[Cost]:
    """Measure a block; forward passes are rows sent through `model` and its clones."""
    cost = Cost()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        _reset_peak()
    passes = model.passes.forward if model is not None else 0
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        if on_gpu:
            torch.cuda.synchronize()
        cost.seconds = time.perf_counter() - wall
        cost.cpu_seconds = time.process_time() - cpu
        cost.peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak()
        cost.forward_passes = model.passes.forward - passes if model is not None else 0


def _reset_peak() -> None:
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _peak() -> Value:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return Undefined("this system does not tell a process its peak memory")
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return Undefined("this system does not tell a process its peak memory")
