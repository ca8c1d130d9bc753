"""The child process: sets its own limits, then does one thing with a suspect and answers in JSON lines.

Started by `process.Child` with `python -I`, in an empty folder. It first imports its libraries, says "ready", and only
then is told what to open; no code of a suspect is imported, unpickled or run in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]


def main(kind: str) -> None:
    """Serve one job of a kind: torch, fickling, onnx, network or transformers/TYPE."""
    from torchbands.scanner.opening import jobs

    work: Callable[[Job], Job | None] = jobs.prepare(kind)
    answer({"ready": True})
    job = json.loads(sys.stdin.buffer.readline())
    restrict(job["seconds"], job["megabytes"], lasting=kind == "onnx")
    try:
        reply = work(job)
    except MemoryError:
        reply = {"error": "it needs more memory than the limit allows", "limit": True}
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
    except BaseException as error:  # a panic of a Rust library
        reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
    if reply is not None:
        answer(reply)


def answer(reply: Job) -> None:
    """One JSON line to the parent."""
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def restrict(seconds: float, megabytes: int, *, lasting: bool = False) -> None:
    """Limit memory (beyond what the libraries take), processor time, file size and open files, where the system can.

    A lasting child, which answers many times, has no limit of processor time: the parent times every answer.
    """
    try:
        import resource
    except ImportError:
        return
    room = megabytes << 20
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 128, "RLIMIT_FSIZE": room, "RLIMIT_AS": _mapped() + room}
    used = resource.getrusage(resource.RUSAGE_SELF)
    if not lasting:
        wanted["RLIMIT_CPU"] = int(used.ru_utime + used.ru_stime + 4 * seconds) + 1
    for name, value in wanted.items():
        number = getattr(resource, name, None)
        if number is None or (name == "RLIMIT_AS" and not _mapped()):
            continue
        _, hard = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
        except (ValueError, OSError):  # a system that knows the limit and does not enforce it
            continue


def _mapped() -> int:
    """Bytes of address space in use; 0 where the system does not say."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, ImportError):
        return 0
