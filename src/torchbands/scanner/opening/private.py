"""A private folder for one child process, with a sentry: when this process dies, in whatever way, the child and all that
it started are killed, and the folder with its copy of the suspect is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

#: A process of its own, which no signal of a terminal reaches. Its input ends when the process that started it does.
_SENTRY = """
import os, shutil, signal, sys
folder, groups = sys.argv[1], set()
for line in sys.stdin:
    word, _, number = line.strip().partition(" ")
    if word == "end":
        break
    (groups.add if word == "watch" else groups.discard)(int(number))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
shutil.rmtree(folder, ignore_errors=True)
"""


class Private:
    """An empty folder. It is removed with the `with` block, with the object, or with this process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="torchbands-")).resolve()
        self._sentry: subprocess.Popen[str] | None = None
        if os.name == "posix":
            self._sentry = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _SENTRY, str(self.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self.close = weakref.finalize(self, _close, self._sentry, self.path)

    def __enter__(self) -> Private:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Kill its group when this process dies."""
        _tell(self._sentry, f"watch {process.pid}")

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """It ended; its number may soon be another's."""
        _tell(self._sentry, f"forget {process.pid}")


def _tell(sentry: subprocess.Popen[str] | None, line: str) -> None:
    if sentry is None or sentry.stdin is None:
        return
    with contextlib.suppress(OSError, ValueError):  # a sentry that was killed
        sentry.stdin.write(line + "\n")
        sentry.stdin.flush()


def _close(sentry: subprocess.Popen[str] | None, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if sentry is None or sentry.stdin is None:
        return
    _tell(sentry, "end")
    with contextlib.suppress(OSError):
        sentry.stdin.close()
    try:
        sentry.wait(10)
    except subprocess.TimeoutExpired:
        sentry.kill()
        sentry.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and whatever it started. It leads a group of its own."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
