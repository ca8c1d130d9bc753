"""What a child process can be asked. `prepare` imports the libraries; the function it returns sees the suspect."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def prepare(kind: str) -> Callable[[Job], Job | None]:
    """The function that does jobs of a kind, with its libraries imported."""
    if kind == "fickling":
        return _fickling()
    if kind == "onnx":
        return _onnx()
    if kind == "sealed":
        return _sealed
    import torch

    torch.set_num_threads(1)
    if kind == "torch":
        from .read_torch import extract

        return extract
    if kind.startswith("network/"):
        from torchbands.core.registry import discover

        discover()
        for name, file in json.loads(kind.removeprefix("network/")).items():
            _import_own(name, Path(file))
        return _network
    if kind.startswith("transformers/"):
        from .hf_build import probe, warm

        warm(kind.removeprefix("transformers/"))
        return probe
    raise ValueError(kind)


def _import_own(name: str, file: Path) -> None:
    """Import a module of the user's that the parent runs too. file: of its top-level module or package."""
    if name in sys.modules:
        return
    sys.path.append(str(file.parents[1] if file.name == "__init__.py" else file.parent))
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        spec = importlib.util.spec_from_file_location(name, file)
        if error.name != name or spec is None or spec.loader is None:
            raise
        sys.modules[name] = importlib.util.module_from_spec(spec)  # a file that goes by another name
        spec.loader.exec_module(sys.modules[name])


def _network(job: Job) -> Job:
    """Build the network that a victim's card names, and say what it looks like."""
    from torchbands.core.registry import build
    from torchbands.core.task import Task

    from .trial import weigh

    task = build(job["task"], "task")
    assert isinstance(task, Task)
    modality, classes = task.modality, task.classes
    try:
        module = task.network.build(modality, classes)
    except PermissionError:
        return {"unavailable": task.network.label()}
    row = weigh(module, modality, classes)
    return {
        "shapes": {name: list(t.shape) for name, t in module.state_dict().items()},
        "row_bytes": row,
        "classes": classes,
        "class_names": [str(n)[:200] for n in task.class_names],
        "modality": modality.spec(),
        "network": task.network.spec(),
    }


def _sealed(job: Job) -> Job:
    """What a child is kept from, tried: for a test of the seal."""
    import os
    import socket
    import subprocess

    def connect(host: str) -> None:
        with socket.socket() as made:
            made.connect((host, 9))

    tries: list[tuple[str, Callable[[], Any]]] = [
        *(("subprocess.Popen", lambda p=p: subprocess.run(p, check=False)) for p in job["programs"]),
        ("os.system", lambda: os.system("true")),
        ("os.fork", os.fork),
        *(("connect", lambda h=h: connect(h)) for h in job["hosts"]),
    ]
    refused = []
    for name, attempt in tries:
        try:
            attempt()
        except PermissionError:
            refused.append(name)
    return {"refused": refused}


def _fickling() -> Callable[[Job], Job]:
    from fickling.analysis import Severity, check_safety
    from fickling.fickle import StackedPickle

    def work(job: Job) -> Job:
        sys.setrecursionlimit(3000)
        with open(job["file"], "rb") as file:  # noqa: PTH123
            pickles = StackedPickle.load(file.read(), fail_on_decode_error=False)
        results = [check_safety(p) for p in pickles]
        worst = max(r.severity.severity for r in results)
        lines = [line for r in results for line in r.to_string().splitlines()]
        return {
            "severity": next(s.name for s in Severity if s.severity == worst),
            "overt": worst >= Severity.LIKELY_OVERTLY_MALICIOUS.severity,
            "lines": [line[:300] for line in lines[:50]],
        }

    return work


def _onnx() -> Callable[[Job], None]:
    import numpy
    import onnxruntime

    from .confined import allow, answer

    def work(job: Job) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
        options.log_severity_level = 4
        with open(job["file"], "rb") as file:  # noqa: PTH123
            session = onnxruntime.InferenceSession(file.read(), options, providers=["CPUExecutionProvider"])
        Path(job["file"]).unlink()
        about = [
            [{"name": v.name, "type": v.type, "shape": list(v.shape)} for v in values]
            for values in (session.get_inputs(), session.get_outputs())
        ]
        answer({"inputs": about[0], "outputs": about[1]})
        while head := sys.stdin.buffer.readline():
            allow(job["seconds"], job["threads"])
            _infer(session, head, numpy, answer)

    return work


def _infer(session: Any, head: bytes, numpy: Any, answer: Callable[[Job], None]) -> None:
    asked = json.loads(head)
    raw = sys.stdin.buffer.read(asked["bytes"])
    x = numpy.frombuffer(raw, dtype=asked["dtype"]).reshape(asked["shape"])
    try:
        found = session.run([asked["output"]], {asked["input"]: x})[0]
        y = numpy.ascontiguousarray(found, dtype=numpy.float32)
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"[:500]})
        return
    answer({"shape": list(y.shape)})
    if y.nbytes <= asked["most"]:  # what is larger is no scores of the rows: its shape says so
        sys.stdout.buffer.write(y.tobytes())
    sys.stdout.buffer.flush()
