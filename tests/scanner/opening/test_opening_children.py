"""However the scanning process ends, its child, all that the child started and the copy of the suspect are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchbands.scanner.opening import Limits
from torchbands.scanner.opening.private import Private
from torchbands.scanner.opening.process import Child

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="process groups and signals"),
    pytest.mark.timeout(300),
]

#: A scan in the middle of a child's work, which has started a program of its own.
_SCAN = """
import signal, subprocess, sys, threading, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run in the background inherit both ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
from torchbands.scanner.opening.private import Private
def work():
    folder = Private()
    (folder / "suspect.onnx").write_bytes(b"copy")
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    folder.watch(child)
    print(child.pid, child.stdout.readline().decode().strip(), folder.path, flush=True)
    time.sleep(600)
work()
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        if Path("/proc/self/stat").exists():
            return False
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    return state not in "ZX"


def _soon(gone: object, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if gone():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(params=["TERM", "HUP", "INT", "KILL"])
def ended(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[int], Path]]:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    scan = subprocess.Popen([sys.executable, "-c", _SCAN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    assert scan.stdout is not None
    child, below, folder = scan.stdout.readline().decode().split()
    pids = [int(child), int(below)]
    try:
        assert all(_alive(p) for p in pids) and Path(folder, "suspect.onnx").exists()
        scan.send_signal(getattr(signal, f"SIG{request.param}"))
        scan.wait(60)
        yield pids, Path(folder)
    finally:
        scan.stdout.close()
        for pid in pids:
            if _alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_nothing_outlives_the_scan(ended: tuple[list[int], Path]) -> None:
    pids, folder = ended
    assert _soon(lambda: not any(_alive(p) for p in pids)), "a child outlived its parent"
    assert _soon(lambda: not folder.exists()), "a copy of the suspect was left behind"


def test_a_child_starts_nothing_fetches_nothing_and_ends_with_its_group() -> None:
    with Private() as folder, Child("sealed", folder, Limits(seconds=60, megabytes=512)) as child:
        told = child.ask({"programs": [[sys.executable, "-c", "0"], ["true"]], "hosts": ["127.0.0.1"]})
        assert told["refused"] == ["subprocess.Popen", "subprocess.Popen", "os.system", "os.fork", "connect"]
        pid, path = child.process.pid, folder.path
        assert os.getpgid(pid) == pid != os.getpgid(0)
    assert not _alive(pid) and not path.exists()


def test_a_child_dies_with_a_parent_whose_sentry_was_killed() -> None:
    """On Linux the kernel sees to it alone."""
    if not sys.platform.startswith("linux"):
        pytest.skip("PR_SET_PDEATHSIG is Linux's")
    code = (
        "import os, sys, time\n"
        "from torchbands.scanner.opening import Limits\n"
        "from torchbands.scanner.opening.private import Private\n"
        "from torchbands.scanner.opening.process import Child\n"
        "folder = Private(); child = Child('sealed', folder, Limits())\n"
        "folder._sentry.kill(); print(child.process.pid, folder.path, flush=True); time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    scan = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    assert scan.stdout is not None
    pid, folder = scan.stdout.readline().decode().split()
    scan.kill()
    scan.wait(60)
    scan.stdout.close()
    assert _soon(lambda: not _alive(int(pid)))
    Path(folder, "stderr.txt").unlink()
    Path(folder).rmdir()
