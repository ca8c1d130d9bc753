"""Run a grid, one cell after another. A failing cell is a record with its traceback, and the sweep goes on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torchbands import zoo
from torchbands.core.attack import Victim
from torchbands.core.errors import BandsError, DamagedVictim, Diverged, InputError, NotApplicable
from torchbands.core.method import Method
from torchbands.core.outside import allowing, named_by
from torchbands.learners.round_state import forget
from torchbands.measures.cost import measured
from torchbands.zoo.files import only_one
from torchbands.zoo.victims import OF_STORE

from .cells import Bench, assess, judge
from .eta import Kind, Left, seconds_of, with_time
from .grid import HARNESS, DefenseCell, Grid, VictimCell, load_grid
from .store import Store, versions

#: Told (cells done, cells in all, what is being done and how long the rest takes, how far within that from 0 to 1).
#: Cells that were found finished are done from the first call on.
Told = Callable[[int, int, str, float], None]

T = TypeVar("T")
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
        progress: told how far the run is.
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
        self.left, self.ahead = Left(), list[Kind]()

    def all(self) -> Summary:
        work = [todo for cell in self.victims if (todo := self._todo(cell)) is not None]
        self.ahead = [kind for todo in work for kind in todo.kinds()]
        for todo in work:
            self._victim_and_its_defenses(todo)
        self.tell(self.cells, self.cells, "finished", 1.0)
        return Summary(self.store.folder, self.computed, self.found, self.declined, self.failed)

    def _todo(self, cell: VictimCell) -> _Todo | None:
        """What is missing of a victim and its defenses; what is finished is counted here, once, and is no work."""
        record = self.store.victim_record(cell.key)
        missing = []
        for defense in (DefenseCell(cell, d) for d in self.grid.defenses):
            if _finished(found := self.store.record(defense.key)):
                self._count_found(1)
                self.left.saw(_kind(defense), seconds_of(found))
            else:
                missing.append(defense)
        if _finished(record):
            self._count_found(1)
            self.left.saw(_kind(cell), seconds_of(record))
            return _Todo(cell, record, missing) if missing else None
        return _Todo(cell, None, missing)

    def _victim_and_its_defenses(self, todo: _Todo) -> None:
        cell, record, missing = todo.cell, todo.record, todo.missing
        bench: Bench | None = None
        if record is None:
            record, bench = self._timed(cell, lambda: self._make(cell))
            self.ahead.remove(_kind(cell))
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
                    self._timed(at, partial(self._defend, at, record, bench))

    def _timed(self, cell: VictimCell | DefenseCell, work: Callable[[], T]) -> T:
        """Do one cell, and remember how long it took."""
        start, before = time.monotonic(), self.computed
        made = work()
        if self.computed > before:  # what fails or declines is quick
            self.left.saw(_kind(cell), time.monotonic() - start)
        return made

    def _count_found(self, n: int) -> None:
        self.found += n
        self.done += n

    def _make(self, cell: VictimCell) -> tuple[dict[str, Any], Bench | None]:
        what = f"{cell.task.name} · {cell.attack.label()} · seed {cell.seed}"
        what = with_time(what, self.left, self.ahead)
        self.tell(self.done, self.cells, what, 0.0)
        head: dict[str, Any] = {
            "key": cell.key,
            "kind": "victim",
            "task": cell.task.name,
            "attack": cell.attack.name,
            "attack_label": cell.attack.label(),
            "backdoor": cell.attack.backdoor,
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
                    cell.task,
                    cell.seed,
                    progress=lambda a, b, _: self.tell(self.done, self.cells, what, a / b),
                    folder=self.store.rounds_dir(cell.key),
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
        forget(self.store.rounds_dir(cell.key), self.store.rounds_dir(cell.key).parent)
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
        what = f"{victim['attack_label']} · seed {victim['seed']} · {cell.defense.name}"
        self.tell(self.done, self.cells, with_time(what, self.left, self.ahead), 0.0)
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
        self.ahead.remove(_kind(cell))
        self._tally(record["status"])

    def _tally(self, state: str) -> None:
        self.done += 1
        self.computed += state == "done"
        self.declined += state == "not-applicable"
        self.failed += state == "failed"


@dataclass(frozen=True)
class _Todo:
    """What is missing of one victim and its defenses; record: its outcome, where it is finished."""

    cell: VictimCell
    record: dict[str, Any] | None
    missing: list[DefenseCell]

    def kinds(self) -> list[Kind]:
        return [*([_kind(self.cell)] if self.record is None else []), *map(_kind, self.missing)]


def _kind(cell: VictimCell | DefenseCell) -> Kind:
    if isinstance(cell, VictimCell):
        return ("victim", cell.task.label(), cell.attack.label())
    return ("defense", cell.defense.label(), cell.victim.task.label(), cell.victim.attack.label())


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
