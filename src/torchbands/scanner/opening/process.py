"""The parent's end of a child process: start it, ask it, stop it in time."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchbands.core.errors import BandsError

from .limits import MAX_REPLY, START_SECONDS, Limits
from .private import Private, kill_group
from .refusal import Refusal, malformed, shown

#: The parent's own libraries come behind the standard library and before whatever else is installed.
_BOOT = (
    "import sys; at = [i for i, p in enumerate(sys.path) if p.endswith('-packages')] + [len(sys.path)]; "
    "sys.path[at[0]:at[0]] = sys.argv[3:]; "
    "from torchbands.scanner.opening.child import main; main(sys.argv[1], int(sys.argv[2]))"
)


class TooLong(Exception):
    """The child did not answer in time."""


class Child:
    """One child process. It ends with the `with` block, or when the object is collected."""

    def __init__(self, kind: str, folder: Private, limits: Limits) -> None:
        self.limits, self.errors = limits, folder / "stderr.txt"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_PRELOAD"))}
        env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TMPDIR": str(folder.path), "HF_HUB_OFFLINE": "1"}
        tied = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _BOOT, kind, str(tied), *_roots()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder.path,
                env=env,
                start_new_session=True,
            )
        folder.watch(self.process)
        self.stop = weakref.finalize(self, _stop, self.process, folder)
        try:
            self.line(START_SECONDS)
        except (TooLong, EOFError):
            self.stop()
            last = self.errors.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            raise BandsError(f"the process that opens suspects could not start: {shown(last[0], 300)}") from None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send(self, job: Mapping[str, Any], raw: bytes | memoryview = b"") -> None:
        """A JSON line and raw bytes. A child that died is noticed by the next `line`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.write(raw)
            self.process.stdin.flush()
        except (OSError, ValueError):  # a broken or a closed pipe
            return

    def line(self, seconds: float) -> dict[str, Any]:
        """The next JSON line. Raises TooLong, or EOFError when the child died."""
        with self.deadline(seconds):
            assert self.process.stdout is not None
            try:
                found = json.loads(self.process.stdout.readline(MAX_REPLY))
            except ValueError:  # nothing, a part of a line, or a closed pipe
                found = None
        if found is None:
            raise EOFError
        return found if isinstance(found, dict) else {}

    def raw(self, count: int, seconds: float) -> bytes:
        """So many bytes."""
        with self.deadline(seconds):
            assert self.process.stdout is not None
            return self.process.stdout.read(count)

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Kill the child when the block takes longer; raises TooLong then."""
        late = threading.Event()

        def kill() -> None:
            late.set()
            _stop(self.process)

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if late.is_set():
            raise TooLong

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Send the job, wait for its reply. Raises Refusal when the child is too slow, dies or reports an error."""
        limits = self.limits
        try:
            self.send({**job, "seconds": limits.seconds, "megabytes": limits.megabytes})
            reply = self.line(limits.seconds)
        except TooLong:
            raise malformed(
                f"opening it took longer than {limits.seconds:g} s and was stopped", limit=f"{limits.seconds:g} s"
            ) from None
        except EOFError:
            raise malformed(f"the process that opened it died ({_ending(self.process)})") from None
        if "error" in reply:
            raise ChildRefusal(str(reply["error"]))
        return reply


class ChildRefusal(Refusal):
    """The child answered with an error. `said`: its words."""

    def __init__(self, said: str) -> None:
        self.said = said
        first = said.strip().splitlines()[0] if said.strip() else "no reason given"
        super().__init__("BD-FILE-02", f"it could not be read: {shown(first, 300)}")


def _stop(process: subprocess.Popen[bytes], folder: Private | None = None) -> None:
    kill_group(process)
    process.wait()
    if folder is not None:
        folder.forget(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not threading.current_thread().daemon:
            try:
                pipe.close()
            except OSError:
                continue


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    return f"signal {-code}: memory or time limit" if code < 0 else f"exit code {code}"


def _roots() -> list[str]:
    """Where the libraries are that a child needs, in case they are not installed for `python -I`."""
    found = []
    for name in ("torchbands", "torch", "numpy", "safetensors"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            found.append(str(Path(spec.origin).resolve().parents[1]))
    return list(dict.fromkeys(found))
