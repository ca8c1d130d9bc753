"""Run benchmark presets and commit what came out: receipts/PRESET.json and docs/results.md.

    python -m benchmarks.receipts [PRESET ...] [--store store] [--only-write]

Every number in docs/results.md comes from here. Rerunning resumes; --only-write writes from what is in the stores. A
run that is ended early (Ctrl-C, or after --minutes) keeps its records in receipts/unfinished/, where a later run, on
this machine or another of the same kind, takes them up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from torchbands import bench, report

from . import unfinished
from .fresh import refuse_stale

PRESETS = ("vision", "training", "population")
#: Pictures have no place in a receipt.
_PICTURES = frozenset({"samples", "recovered", "true", "trigger", "histogram"})
_HEAD = """# Results

Every table here is written by `python -m benchmarks.receipts` from receipts of the same name in
[`receipts/`](../receipts), which also hold the settings, the versions and the seconds. What the columns mean is in
[Concepts](concepts.md). A defense never sees a test row or the truth about a
row. But while the repairs and abl were being written, some of their settings were tried on digits and Fashion-MNIST
victims with the attack success in sight: take their rows on these two sets for development results, not for held-out
evidence. Whatever the numbers are, they are here.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--store", type=Path, default=Path("store"), help="folder of one store per preset")
    parser.add_argument("--only-write", action="store_true", help="run nothing")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end a preset after so many minutes")
    args = parser.parse_args()
    for preset in args.presets:
        folder = args.store / preset
        if not args.only_write and not _measured(preset, folder, args.minutes):
            return 1
        receipt = Path("receipts") / f"{preset}.json"
        report.write(folder, receipt, ("json",))
        plain = _without_pictures(json.loads(receipt.read_text()))
        receipt.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
        report.write(folder, Path("receipts") / f"{preset}.md", ("md",))
        unfinished.done(preset)
        print(f"written: {receipt} and receipts/{preset}.md")
    _write_docs()
    return 0


def _measured(preset: str, folder: Path, minutes: float) -> bool:
    """Run what is missing of a preset; False where it was ended before it was finished, and its records were kept."""
    end, last = time.monotonic() + 60 * minutes, ""
    print(f"{unfinished.take_up(preset, preset, folder)} records of an earlier sitting", file=sys.stderr)

    def tell(done: int, cells: int, what: str, _: float) -> None:
        nonlocal last
        if what != last:
            print(f"[{done}/{cells}] {what}", file=sys.stderr)
        last = what
        if time.monotonic() > end:
            raise KeyboardInterrupt

    try:
        bench.run(preset, folder, command=f"python -m benchmarks.receipts {preset}", progress=tell)
    except KeyboardInterrupt:
        kept = unfinished.keep(preset, folder)
        print(
            f"ended early: {kept} records are in {unfinished.path_of(preset)}; the same command goes on",
            file=sys.stderr,
        )
        return False
    return True


def _without_pictures(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_pictures(v) for k, v in value.items() if k not in _PICTURES}
    return [_without_pictures(v) for v in value] if isinstance(value, list) else value


def _write_docs() -> None:
    """docs/results.md from the receipts that are there; refused where one is of other versions than are installed."""
    there = [(preset, path) for preset in PRESETS if (path := Path("receipts") / f"{preset}.json").is_file()]
    command = "python -m benchmarks.receipts"
    refuse_stale((str(path), json.loads(path.read_text("utf-8")), f"{command} {preset}") for preset, path in there)
    parts = [_HEAD]
    for preset in PRESETS:
        path = Path("receipts") / f"{preset}.md"
        if path.is_file():
            body = path.read_text("utf-8").split("## How to read it")[0].strip()
            shifted = "\n".join(f"#{line}" if line.startswith("#") else line for line in body.splitlines())
            parts.append(f"{shifted}\n\nMade by `python -m benchmarks.receipts {preset}`.\n")
    Path("docs/results.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
