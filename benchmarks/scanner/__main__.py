"""`python -m benchmarks.scanner make --store DIR` trains and looks; `... tables --store DIR` writes the receipt;
`... baselines --store DIR` only its part on published detectors, `... page` only the page."""

from __future__ import annotations

import argparse
from pathlib import Path

from .make import run
from .plan import settings


def main() -> None:
    """Parse and carry out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scanner")
    parser.add_argument("what", choices=("make", "tables", "baselines", "page"))
    parser.add_argument("--store", type=Path, default=Path("scanner-population"))
    parser.add_argument("--settings", nargs="+", default=list(settings()))
    stages = ["references", "complete", "judge", "pairs", "controls", "same-trigger", "baselines"]
    parser.add_argument("--stages", nargs="+", default=stages)
    parser.add_argument("--part", type=int, default=0, help="this process's share of the work, from 0")
    parser.add_argument("--parts", type=int, default=1, help="processes that share the work")
    parser.add_argument("--only", nargs="+", default=[], help="groups of models to judge (default: all)")
    parser.add_argument("--each", type=int, default=1, help="models of a family that the published detectors look at")
    parser.add_argument("--same", type=Path, help="where same-trigger comparisons are kept (default: in the store)")
    given = parser.parse_args()
    if given.what == "make":
        run(given.store, given.settings, given.stages, given.part, given.parts, given.only, given.each, given.same)
        return
    from . import tables

    if given.what == "tables":
        tables.write(given.store, given.settings, given.same)
    elif given.what == "baselines":
        tables.write_baselines(given.store, given.settings)
    else:
        tables.write_page()


if __name__ == "__main__":
    main()
