"""Open every file of the hostile corpus and count what must not happen, and what it costs at most.

    python -m benchmarks.hostile [--fast]

Writes receipts/hostile.json. `--fast` leaves out the few that need a child with large libraries, and writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from torchbands.core.errors import BandsError
from torchbands.modalities.image import Image
from torchbands.scanner.opening import Limits, open_suspect

RECEIPT = Path("receipts/hostile.json")
#: What each file may cost: as `--time-limit` and `--memory-limit` would say it.
LIMITS = Limits(seconds=30, megabytes=1024)
#: A file that takes longer than its limit and the import of libraries in its child is a hang.
LONGEST = LIMITS.seconds + 180


def main() -> int:
    """Every file, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    fast = parser.parse_args().fast
    with tempfile.TemporaryDirectory() as temporary:
        told = opened(Path(temporary).resolve(), slow=not fast)
    print(told)
    if not fast:
        RECEIPT.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0 if not (told["executed"] or told["hung"] or told["orphans"] or told["models_given"]) else 1


def opened(folder: Path, *, slow: bool) -> dict[str, Any]:
    """Counts over the corpus."""
    hostile = _corpus()
    cases, marker = hostile.build(folder, slow=slow), folder / hostile.MARKER
    counts: Counter[str] = Counter(executed=0, hung=0, orphans=0, models_given=0)
    grown, longest = 0.0, 0.0
    for path in cases:
        before, started, children = _peak(resource.RUSAGE_SELF), time.monotonic(), _children()
        with contextlib.suppress(BandsError):
            suspect = open_suspect(
                path,
                arch='{"name": "resnet", "params": {"depth": 8}}',
                modality=Image(channels=3, size=32),
                limits=LIMITS,
            )
            counts["models_given"] += suspect.model is not None
        seconds = time.monotonic() - started
        counts["executed"] += marker.exists()
        counts["hung"] += seconds > LONGEST
        counts["orphans"] += len(_children() - children)
        marker.unlink(missing_ok=True)
        grown, longest = max(grown, _peak(resource.RUSAGE_SELF) - before), max(longest, seconds)
    return {
        "command": "python -m benchmarks.hostile",
        "files": len(cases),
        **counts,
        "limits": {"seconds": LIMITS.seconds, "megabytes": LIMITS.megabytes},
        "longest_seconds": round(longest, 1),
        "parent_grew_mb": round(grown),
        "largest_child_mb": round(_peak(resource.RUSAGE_CHILDREN)),
    }


def _corpus() -> Any:
    at = Path(__file__).parents[1] / "tests" / "scanner" / "hostile.py"
    spec = importlib.util.spec_from_file_location("hostile", at)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["hostile"] = made
    spec.loader.exec_module(made)
    return made


def _peak(who: int) -> float:
    """Largest resident size so far, in MB (Linux counts in KB)."""
    return resource.getrusage(who).ru_maxrss / 1024


def _children() -> set[int]:
    """Children of this process that still run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == os.getpid() and state not in "ZX":
                found.add(int(stat.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
