"""Break the methods one line at a time and see that a test notices: `make mutants`.

Every entry of `mutant_list.MUTANTS` names one wrong line of a formula (a sign turned, a term dropped, a threshold on
the other side) and the tests that must fail with it. They run with a copy of the package that has this line; the
working tree is not touched. Each mutant has a process of its own, forked from one that has torch in memory already.

Exit status 0: every mutant was killed. 1: some survived. 2: a patch no longer applies, a test that is named is not
there, or fails without any mutant.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "torchbands"
#: Seconds for a mutant's tests, and for all tests without a mutant: some mutants never end.
PER_MUTANT, ALL_TESTS = 120, 900
#: What pytest says where every test passed, and where some failed.
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Mutant:
    """One wrong line. name: method and fault. file: below src/torchbands. old: a text that it has once. new: in its
    place. tests: pytest ids, of which at least one must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def trouble(self) -> str:
        """Why the patch does not apply; empty where it does."""
        path = SOURCE / self.file
        if not path.is_file():
            return f"{self.name}: there is no {self.file}"
        found = path.read_text(encoding="utf-8").count(self.old)
        if found != 1:
            return f"{self.name}: {self.file} has {self.old!r} {found} times, expected once"
        return "" if self.old != self.new else f"{self.name}: changes nothing"


def run(package: Path, tests: Sequence[str], seconds: float, log: Path) -> int | None:
    """pytest's exit status with the package at `package`; None where it took too long."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        status = 70
        try:
            status = _inside(package, tests)
        finally:
            os._exit(status)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _inside(package: Path, tests: Sequence[str]) -> int:
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = f"{package}{os.pathsep}{ROOT}"
    sys.path[:0] = [str(package), str(ROOT)]
    import pytest

    import torchbands

    assert torchbands.__file__ is not None and Path(torchbands.__file__).is_relative_to(package), torchbands.__file__
    return int(pytest.main(["-q", "-x", "-n0", "-p", "no:cacheprovider", "--timeout", str(PER_MUTANT), *tests]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose name has this text")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without a mutant first")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from mutant_list import MUTANTS

    chosen = [m for m in MUTANTS if given.only in m.name]
    troubles = [t for m in chosen if (t := m.trouble())]
    if troubles or not chosen:
        print("\n".join(troubles) or f"no mutant has {given.only!r} in its name")
        return 2
    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    __import__("torch")  # every forked process has it at once
    with tempfile.TemporaryDirectory() as folder:
        return _judge(chosen, Path(folder), given.trust)


def _judge(chosen: Sequence[Mutant], folder: Path, trust: bool) -> int:
    package, log, started = folder / "src", folder / "log.txt", time.monotonic()
    shutil.copytree(ROOT / "src", package, ignore=shutil.ignore_patterns("__pycache__"))
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    if not trust and (status := run(package, tests, ALL_TESTS, log)) != PASSED:
        print(f"{log.read_text(errors='replace')[-2000:]}\ntests without a mutant end with {status}, expected 0")
        return 2
    survived, broken = [], []
    for mutant in chosen:
        path, begun = package / "torchbands" / mutant.file, time.monotonic()
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
        status = run(package, mutant.tests, PER_MUTANT, log)
        path.write_text(whole, encoding="utf-8")
        said = {None: "killed (no end)", FAILED: "killed", PASSED: "SURVIVED"}.get(status, f"ERROR {status}")
        print(f"{said:16} {time.monotonic() - begun:5.1f} s  {mutant.name}", flush=True)
        survived += [mutant.name] if status == PASSED else []
        if said.startswith("ERROR"):
            broken.append(mutant.name)
            print(log.read_text(errors="replace")[-1500:])
    used = sum(getattr(resource.getrusage(resource.RUSAGE_CHILDREN), f"ru_{kind}time") for kind in "us")
    killed = len(chosen) - len(survived) - len(broken)
    print(f"{killed} of {len(chosen)} killed, in {time.monotonic() - started:.0f} s ({used:.0f} s of processor time)")
    return 2 if broken else int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
