"""Runs that are longer than a sitting: what is measured so far travels with the receipts, and a later run goes on.

Only records travel, not the victims: where defenses of a victim are missing, or a victim's control is still asked for,
the victim is trained again from its seed. Records are keyed by data, device, precision and versions, so that what was
measured on another kind of machine, or of another version of a method, is not found again.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from torchbands.bench import load_grid
from torchbands.bench.store import Store

FOLDER = Path("receipts/unfinished")
FINISHED = ("done", "not-applicable")


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.jsonl.gz"


def take_up(name: str, grid: Any, store: Path) -> int:
    """Write what an earlier sitting measured into a store, where this grid asks for it. The records written."""
    if not path_of(name).is_file():
        return 0
    kept, lines = Store(store), gzip.decompress(path_of(name).read_bytes()).decode().splitlines()
    found = {
        kind: {r["key"]: r for r in map(json.loads, lines) if r["kept"] == kind} for kind in ("outcomes", "records")
    }
    made = load_grid(grid)
    victims = made.victims()
    cells = {v.key: [c.key for c in made.defense_cells([v])] for v in victims}
    whole = {v.key: v.key in found["outcomes"] and all(k in found["records"] for k in cells[v.key]) for v in victims}
    written = 0
    for victim in victims:
        same = [v for v in victims if (v.task.key(), v.seed) == (victim.task.key(), victim.seed)]
        needed = victim.attack.name == "clean" and not all(whole[v.key] for v in same)
        if whole[victim.key] and not needed and kept.victim_record(victim.key) is None:
            kept.write_victim_record(_plain(found["outcomes"][victim.key]))
            written += 1
        for key in cells[victim.key]:
            if key in found["records"] and kept.record(key) is None:
                kept.write_record(_plain(found["records"][key]))
                written += 1
    return written


def keep(name: str, store: Path) -> int:
    """Save the finished records of a store for a later sitting; failed ones are tried again. The records saved."""
    kept, lines = Store(store), []
    for kind in ("outcomes", "records"):
        for record in kept.asked(kind):
            if record.get("status") in FINISHED:
                lines.append(json.dumps({**_without_pictures(record), "kept": kind}, sort_keys=True))
    path_of(name).parent.mkdir(parents=True, exist_ok=True)
    path_of(name).write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return len(lines)


def done(name: str) -> None:
    """The receipt holds it all now."""
    path_of(name).unlink(missing_ok=True)


def _without_pictures(record: dict[str, Any]) -> dict[str, Any]:
    """A receipt shows none, and they are nine tenths of a record."""
    kept = {k: v for k, v in record.items() if not k.endswith("_html")}
    return kept | ({"samples": []} if "samples" in kept else {})


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != "kept"}
