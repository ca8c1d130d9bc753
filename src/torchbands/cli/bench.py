"""`bands bench run | status | report`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from torchbands import report as reports
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.words import command_line

from . import console
from .own_methods import LOADED


def run(given: argparse.Namespace) -> int:
    """Run what is missing, then write the report. 2 where a cell failed."""
    from torchbands import bench

    if given.seeds is not None and given.seeds < 1:
        raise InputError(f"--seeds is at least 1, got {given.seeds}")
    own = [word for name in LOADED for word in ("--load", name)]
    command = command_line(["bands", *own, "bench", "run", given.grid, "--store", given.store])
    command += f" --seeds {given.seeds}" if given.seeds is not None else ""
    with console.progress_bar() as bar:
        summary = bench.run(
            given.grid,
            Path(given.store),
            seeds=given.seeds,
            progress=lambda done, total, what, part: bar(done, total, what),
            command=command,
        )
    written = [] if given.no_report else reports.write(summary.store)
    if given.json:
        console.print_json(dataclasses.asdict(summary) | {"report": [str(p) for p in written]})
    else:
        print(
            f"{summary.computed} cells computed, {summary.found} found finished, "
            f"{summary.declined} not applicable, {summary.failed} failed"
        )
        if written:
            print(f"report: {written[0]}")
    for text in reports.warnings(summary.store):
        console.note(f"warning: {text}")
    if summary.failed:
        console.note(f"{summary.failed} cells failed; the report says why. The same command tries them again.")
    return 2 if summary.failed else 0


def status(given: argparse.Namespace) -> int:
    """How much of a store is finished."""
    from torchbands import bench

    found = bench.status(given.store)
    if given.json:
        console.print_json(found)
        return 0
    left = found.get("missing", 0)
    rows = [(str(name), str(value)) for name, value in found.items()]
    console.print_table(("", ""), rows)
    for text in reports.warnings(given.store):
        console.note(f"warning: {text}")
    console.note("finished" if not left else f"{left} cells are missing: run the same `bands bench run` again")
    return 0


def report(given: argparse.Namespace) -> int:
    """Write the report; the paths go to stdout."""
    out = Path(given.out) if given.out else None
    formats = given.format.split(",") if given.format else _formats(out)
    if given.out == "-":
        if len(formats) != 1 or not given.format:
            raise InputError(
                "-o - is stdout, for one format", hint=f"say which: --format {'|'.join(reports.ALL_FORMATS)}"
            )
        print(reports.render(given.store, formats[0]), end="")
        return 0
    for path in reports.write(given.store, given.out or None, formats):
        print(path)
    return 0


def _formats(out: Path | None) -> tuple[str, ...]:
    """Those of the suffix of FILE, or all."""
    if out is None or out.is_dir() or not out.suffix:
        return reports.FORMATS
    try:
        return (reports.format_of(out.suffix),)
    except UnknownName:
        raise UnknownName("suffix of a report", out.suffix, [f".{f}" for f in reports.ALL_FORMATS]) from None
