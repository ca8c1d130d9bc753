"""The child process: sets its own limits, then does one thing with a suspect and answers in JSON lines.

Started by `process.Child` with `python -I`, in an empty folder. It first imports its libraries, says "ready", and only
then is told what to open; no code of a suspect is imported, unpickled or run in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from torchbands.scanner.opening import jobs
from torchbands.scanner.opening.confined import answer, restrict, seal, tie

Job = dict[str, Any]


def main(kind: str, parent: int) -> None:
    """Serve one job of a kind: torch, fickling, onnx, network/MODULES or transformers/TYPE.

    Args:
        parent: the process to die with, or 0.
    """
    tie(parent)
    work: Callable[[Job], Job | None] = jobs.prepare(kind)
    answer({"ready": True})
    job = json.loads(sys.stdin.buffer.readline())
    seal()
    restrict(job["seconds"], job["megabytes"], threads=job.get("threads", 4))
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
