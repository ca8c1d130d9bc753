"""What holds a child process in: its own limits, and nothing started or fetched. It answers in JSON lines."""

from __future__ import annotations

import json
import sys
from typing import Any


def answer(reply: dict[str, Any]) -> None:
    """One JSON line to the parent."""
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def tie(parent: int) -> None:
    """On Linux, die when the parent's main thread does; elsewhere the sentry of `private.Private` sees to it alone."""
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes
    import os
    import signal

    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before
        os._exit(1)


#: What Python reports before it starts a program or reaches for the network.
_SEALED = (
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn"),
    *("os.startfile", "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"),
    *("socket.gethostbyname", "urllib.Request", "ftplib.connect", "smtplib.connect"),
)


def seal() -> None:
    """From here on this process starts no program and fetches nothing, whatever a suspect asks for."""

    def refuse(event: str, _: object) -> None:
        if event in _SEALED:
            raise PermissionError(f"a process that opens a suspect starts no program and fetches nothing ({event})")

    sys.addaudithook(refuse)


def restrict(seconds: float, megabytes: int, *, threads: int = 4) -> None:
    """Limit memory (beyond what the libraries take), processor time, file size and open files, where the system can."""
    try:
        import resource
    except ImportError:
        return
    room = megabytes << 20
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 128, "RLIMIT_FSIZE": room, "RLIMIT_AS": _mapped() + room}
    for name, value in wanted.items():
        number = getattr(resource, name, None)
        if number is None or (name == "RLIMIT_AS" and not _mapped()):
            continue
        _, hard = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
        except (ValueError, OSError):  # a system that knows the limit and does not enforce it
            continue
    allow(seconds, threads)


def allow(seconds: float, threads: int) -> None:
    """Processor time for the next answer. The parent times each answer as well; this holds where there is none left."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + max(threads, 4) * seconds) + 1
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    except (ImportError, ValueError, OSError):
        return


def _mapped() -> int:
    """Bytes of address space in use; 0 where the system does not say."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, ImportError):
        return 0
