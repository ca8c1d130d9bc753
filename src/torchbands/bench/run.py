"""Run a grid, one cell after another. A failing cell is a record with its traceback, and the sweep goes on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torchbands import zoo
from torchbands.core.attack import Victim
from torchbands.core.errors import BandsError, DamagedVictim, Diverged, InputError, NotApplicable
from torchbands.core.method import Method
from torchbands.core.outside import allowing, named_by
from torchbands.measures.cost import measured
from torchbands.zoo.files import only_one
from torchbands.zoo.victims import OF_STORE

from .cells import Bench, assess, judge
from .grid import HARNESS, DefenseCell, Grid, VictimCell, load_grid
from .store import Store, versions

#: Told (cells done, cells in all, what is being done, how far within that from 0 to 1).
Told = Callable[[int, int, str, float], None]

FINISHED = ("done", "not-applicable")


@dataclass(frozen=True)
class Summary:
    """How a run ended: cells computed now, found finished, declined, failed."""

    store: Path
    computed: int
    found: int
    declined: int
    failed: int


def run(
    grid: str | Path | Mapping[str, Any],
    store: str | Path,
    *,
    seeds: int | None = None,
    progress: Told | None = None,
    command: str = "",
) -> Summary:
    """Run what is missing of a grid. The same call again computes nothing that is finished; failed cells are retried.

    Args:
        grid: a preset's name, a JSON file, or an object.
        store: directory of the results, made if needed.
        seeds: use seeds 0..n-1 in place of the grid's own.
    """
    made = load_grid(grid)
    if seeds is not None:
        if seeds < 1:
            raise BandsError(f"seeds is at least 1, got {seeds}")
        made = replace(made, seeds=tuple(range(seeds)))
    kept = Store(store)
    with only_one(kept.folder, "the store"):
        return _run(made, kept, grid, progress, command)


def _run(made: Grid, kept: Store, grid: str | Path | Mapping[str, Any], progress: Told | None, command: str) -> Summary:
    victims, store = made.victims(), kept.folder
    kept.write_grid(
        {
            "preset": grid if isinstance(grid, str) else None,
            "command": command or f"bands bench run {'FILE' if isinstance(grid, Mapping) else grid} --store {store}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "question": made.question,
            "grid": made.spec(),
            "harness": HARNESS,
            "keys": {
                "outcomes": [c.key for c in victims],
                "records": [c.key for c in made.defense_cells(victims)],
            },
            "versions": versions(),
        }
    )
    return _Runner(made, victims, kept, progress or (lambda *_: None)).all()


def status(store: str | Path) -> dict[str, Any]:
    """How much of what the last run of a store asked for is finished, by state."""
    kept = Store(store)
    keys = kept.grid().get("keys")
    if not isinstance(keys, Mapping):
        raise InputError(f"{kept.folder} was written by an older version", hint="run the same grid again")
    found = [kept.victim_record(k) for k in keys["outcomes"]] + [kept.record(k) for k in keys["records"]]
    count = {"done": 0, "not-applicable": 0, "failed": 0, "missing": 0}
    for record in found:
        count["missing" if record is None else str(record["status"])] += 1
    return {"store": str(kept.folder), "cells": len(found), **count}


class _Runner:
    def __init__(self, grid: Grid, victims: list[VictimCell], store: Store, tell: Told) -> None:
        self.grid, self.victims, self.store, self.tell = grid, victims, store, tell
        self.cells = len(victims) * (1 + len(grid.defenses))
        self.done = self.computed = self.found = self.declined = self.failed = 0
        self.controls: dict[tuple[str, int], Victim] = {}

    def all(self) -> Summary:
        for cell in self.victims:
            self._victim_and_its_defenses(cell)
        self.tell(self.cells, self.cells, "finished", 1.0)
        return Summary(self.store.folder, self.computed, self.found, self.declined, self.failed)

    def _victim_and_its_defenses(self, cell: VictimCell) -> None:
        wanted = [DefenseCell(cell, d) for d in self.grid.defenses]
        missing = [c for c in wanted if not _finished(self.store.record(c.key))]
        record = self.store.victim_record(cell.key)
        if _finished(record) and not missing:
            self._count_found(1 + len(wanted))
            return
        bench: Bench | None = None
        if not _finished(record):
            record, bench = self._make(cell)
        else:
            self._count_found(1)
        assert record is not None
        self._count_found(len(wanted) - len(missing))
        if record["status"] != "done":
            for at in missing:
                reason = f"its victim was not made: {record['reason']}"
                self._write(at, {**_head(at, record), "status": record["status"], "reason": reason})
            return
        if missing and bench is None:
            try:
                bench = Bench.of(self._load(cell))
            except (DamagedVictim, InputError) as error:
                outcome = self.store.folder / "outcomes" / f"{cell.key}.json"
                reason = f"{error.message}; to make the victim again, remove {outcome} and run the same command"
                for at in missing:
                    self._write(at, {**_head(at, record), "status": "failed", "reason": reason})
                return
        if bench is not None:
            with bench.model.shared():
                for at in missing:
                    self._defend(at, record, bench)

    def _count_found(self, n: int) -> None:
        self.found += n
        self.done += n

    def _make(self, cell: VictimCell) -> tuple[dict[str, Any], Bench | None]:
        what = f"{cell.task.name} · {cell.attack.label()} · seed {cell.seed}"
        self.tell(self.done, self.cells, what, 0.0)
        head: dict[str, Any] = {
            "key": cell.key,
            "kind": "victim",
            "task": cell.task.name,
            "attack": cell.attack.name,
            "attack_label": cell.attack.label(),
            "task_spec": cell.task.spec(),
            "attack_spec": cell.attack.spec(),
            "seed": cell.seed,
            "identity": cell.identity.of(cell.task),
            "versions": versions(),
        }
        bench: Bench | None = None
        try:
            with measured() as cost:
                victim = self._existing(cell) or cell.attack.run(
                    cell.task, cell.seed, progress=lambda a, b, _: self.tell(self.done, self.cells, what, a / b)
                )
            zoo.save(victim, self.store.victim_dir(cell.key), OF_STORE)
            bench = Bench.of(victim)
            head |= assess(victim, self._control(cell, victim), bench)
            head |= {"status": "done", "reason": None}
            head["precision"] = victim.info.get("precision")
            facts = {k: victim.info.get(k) for k in ("poisoned", "rows", "seconds", "forward_passes")}
            head["cost"] = {"cpu_seconds": round(cost.cpu_seconds, 3), "peak_mb": _plain(cost.peak_mb), **facts}
        except NotApplicable as declined:
            head |= {"status": "not-applicable", "reason": declined.reason}
        except Exception as error:
            if isinstance(error, BandsError) and not isinstance(error, (Diverged, DamagedVictim)):
                raise  # no other cell would fare better: no data, a full disk, a setting that the task refuses
            head |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            head["traceback"] = traceback.format_exc()
        self.store.write_victim_record(head)
        self._tally(head["status"])
        return head, bench

    def _existing(self, cell: VictimCell) -> Victim | None:
        """A victim whose training ended but whose outcome was not written before a kill."""
        try:
            return self._load(cell) if self.store.victim_dir(cell.key).is_dir() else None
        except DamagedVictim:
            return None

    def _load(self, cell: VictimCell) -> Victim:
        """The victim of a cell. Its card may name what the grid itself names, and must be of this very cell."""
        folder = self.store.victim_dir(cell.key)
        with allowing(*named_by(cell.task), *named_by(cell.attack)):
            victim = zoo.load(folder)
        if (victim.task, victim.attack, victim.seed) != (cell.task, cell.attack, cell.seed):
            raise DamagedVictim(f"{folder} holds another victim than the one that its name stands for")
        return victim

    def _control(self, cell: VictimCell, victim: Victim) -> Victim:
        key = (cell.task.key(), cell.seed)
        if cell.attack.name == "clean":
            self.controls = {key: victim}
            return victim
        if key not in self.controls:
            clean = next(c for c in self.victims if c.attack.name == "clean" and (c.task.key(), c.seed) == key)
            if not self.store.victim_dir(clean.key).is_dir():  # tried again by the next run, once there is one
                raise RuntimeError("the never-poisoned control of the same task and seed was not made")
            self.controls = {key: self._load(clean)}
        return self.controls[key]

    def _defend(self, cell: DefenseCell, victim: dict[str, Any], bench: Bench) -> None:
        self.tell(self.done, self.cells, f"{victim['attack_label']} · seed {victim['seed']} · {cell.defense.name}", 0.0)
        record = _head(cell, victim)
        try:
            record |= judge(bench.victim, cell.defense, seed=cell.victim.seed, bench=bench)
            record |= {"status": "done", "reason": None}
        except NotApplicable as declined:
            record |= {"status": "not-applicable", "reason": declined.reason}
        except Exception as error:
            record |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            record["traceback"] = traceback.format_exc()
        self._write(cell, record)

    def _write(self, cell: DefenseCell, record: dict[str, Any]) -> None:
        self.store.write_record(record)
        self._tally(record["status"])

    def _tally(self, state: str) -> None:
        self.done += 1
        self.computed += state == "done"
        self.declined += state == "not-applicable"
        self.failed += state == "failed"


def _finished(record: dict[str, Any] | None) -> bool:
    return record is not None and record.get("status") in FINISHED


def _head(cell: DefenseCell, victim: dict[str, Any]) -> dict[str, Any]:
    defense: Method = cell.defense
    return {
        "key": cell.key,
        "kind": "defense",
        "victim": cell.victim.key,
        **{k: victim[k] for k in ("task", "attack", "attack_label", "seed")},
        "defense": defense.name,
        "defense_label": defense.label(),
        "defense_spec": defense.spec(),
        "role": defense.role,
        "identity": cell.victim.identity.of(cell.victim.task),
        "versions": versions(),
    }


def _plain(value: Any) -> float | None:
    return round(value, 1) if isinstance(value, float) else None
