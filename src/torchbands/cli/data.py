"""`bands data list | get | path`."""

from __future__ import annotations

import argparse

from torchbands import datasets
from torchbands.core.errors import DataUnavailable

from . import console


def show_list(given: argparse.Namespace) -> int:
    """Every data set, and whether it is here."""
    found = [datasets.status(name) for name in datasets.names()]
    if given.json:
        console.print_json(found)
        return 0
    rows = []
    for s in found:
        count = "–" if s["rows"] is None else " + ".join(f"{n:,}" for n in s["rows"].values())
        shape = "×".join(str(side) for side in s["shape"])
        size = f"{s['bytes'] / 1e6:,.0f} MB" if s["cached"] else "–"
        here = "here" if s["cached"] else "not fetched"
        rows.append((s["name"], here, count, shape, str(s["classes"]), size, s["cite"]))
    columns = ("name", "state", "train + test", "shape", "classes", "size", "source")
    console.print_table(columns, rows, right=(2, 4, 5))
    return 0


def get(given: argparse.Namespace) -> int:
    """Fetch a data set; its folder goes to stdout."""
    from torchbands.datasets.language import extras

    with console.progress_bar() as bar:
        if (extra := extras().get(given.name)) is not None:
            bar(0, None, f"fetching {given.name}")
            print(extra())
            return 0
        folder = datasets.get(given.name, progress=lambda done, total, what: bar(done, total, what))
    print(folder)
    return 0


def path(given: argparse.Namespace) -> int:
    """Where a data set is cached."""
    found = datasets.status(given.name)
    if not found["cached"]:
        raise DataUnavailable(f"{given.name} is not on this machine", hint=f"fetch it: bands data get {given.name}")
    print(found["path"])
    return 0
