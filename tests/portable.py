"""Run the tests that train or search as other processors would: `make test-portable`.

Trained weights differ in their last bits from processor to processor and from one number of threads to another, and
training makes last bits large. What a test says must not hang on them, so those tests run again

- with the kernels of processors without AVX-512 and without AVX2 (and without bfloat16, which goes with AVX-512),
- with one thread and with two,
- with every fresh network's weights moved by a millionth (a jitter), which stands in for the processors that are not
  here: `--jitters` says how many times.

Runs share the cores. Exit status 0 where every run passed; what failed where, and how long a run took, is told as it
ends.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: ATen, oneDNN and MKL each choose their kernels for themselves.
PROCESSORS: Mapping[str, Mapping[str, str]] = {
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "native": {},
}
#: Folders and files whose tests train or search. What is not here reads files, draws reports or checks messages.
TESTS = (
    "tests/attacks",
    "tests/defenses",
    "tests/learners",
    "tests/measures",
    "tests/test_contract.py",
    "tests/test_contract_catches.py",
    "tests/test_pitfalls_inversion.py",
    "tests/test_pitfalls_judging.py",
    "tests/test_pitfalls_text.py",
    "tests/test_pitfalls_training.py",
    "tests/test_seams.py",
    "tests/test_toys.py",
    "tests/test_transformer_network.py",
    "tests/scanner/test_dataset.py",
    "tests/scanner/test_guard.py",
    "tests/scanner/test_inconclusive.py",
    "tests/scanner/test_scan.py",
    "tests/scanner/test_repair_model.py",
    "tests/scanner/test_references.py",
    "tests/scanner/test_text_refs.py",
    "tests/scanner/test_text_scan.py",
)


@dataclass
class Run:
    """One pass over the tests in one setting."""

    name: str
    threads: int
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    started: float = field(default=0.0)
    seconds: float = 0.0

    def start(self, folder: Path, tests: list[str]) -> None:
        self.log = folder / f"{self.name.replace(' ', '-')}.txt"
        threads = {"OMP_NUM_THREADS": str(self.threads), "TORCHBANDS_TEST_THREADS": str(self.threads)}
        self.started = time.perf_counter()
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "900", *tests],
                cwd=ROOT,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **self.environment, **threads},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def told(self) -> tuple[int, list[str]]:
        """How many tests passed, and the names of those that failed or could not run."""
        assert self.log is not None and self.process is not None
        text = self.log.read_text("utf-8", "replace")
        failed = sorted(set(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)))
        passed = re.search(r"(\d+) passed", text)
        if self.process.returncode and not failed:
            failed = [f"exit status {self.process.returncode}: {text[-2000:]}"]
        return int(passed[1]) if passed else 0, failed


def runs(jitters: int, only: list[str]) -> list[Run]:
    """Every setting, those that take longest first. `make test` has the machine's own kernels with one thread."""
    made = [Run(f"{name} {t} threads", t, env) for name, env in PROCESSORS.items() for t in (1, 2)]
    made += [Run(f"jitter {i}", 1, {"TORCHBANDS_TEST_JITTER": str(i)}) for i in range(1, jitters + 1)]
    return [r for r in made if not only or any(r.name.startswith(name) for name in only)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=list(TESTS), help="paths, as pytest takes them")
    parser.add_argument("--jitters", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="runs whose name begins so")
    given = parser.parse_args()
    waiting, going, done = runs(given.jitters, given.only), list[Run](), list[Run]()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or going:
                busy = sum(r.threads for r in going)
                for run in [r for r in waiting if not going or busy + r.threads <= cores][:1]:
                    waiting.remove(run)
                    run.start(Path(folder), given.tests)
                    going.append(run)
                    print(f"started: {run.name}", flush=True)
                time.sleep(0.5)
                for run in [r for r in going if r.process is not None and r.process.poll() is not None]:
                    run.seconds = time.perf_counter() - run.started
                    going.remove(run)
                    done.append(run)
                    passed, failed = run.told()
                    print(f"{run.name}: {passed} passed, {len(failed)} failed, {run.seconds:.0f} s", flush=True)
                    for name in failed:
                        print(f"    {name}", flush=True)
        finally:
            for run in going:
                if run.process is not None:
                    run.process.terminate()
        totals = [run.told() for run in done]
    passed, failed = sum(p for p, _ in totals), sum(len(f) for _, f in totals)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
