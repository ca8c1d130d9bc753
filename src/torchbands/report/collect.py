"""Turns a store directory into Results."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cells import BENIGN, attack_of, cell_of, defense_of
from .provenance import PRECISION, of_row, split
from .read import Record, read
from .results import Attack, Results, TaskResults
from .roles import ROLES


def collect(store: str | Path) -> Results:
    """Group a store's records by task, attack, defense and seed.

    Victims of one task with different settings are tasks of their own: their numbers are never mixed.

    Raises:
        InputError: the directory is not a store.
    """
    files = read(Path(store))
    by_task: dict[str, list[Record]] = defaultdict(list)
    home: dict[str, str] = {}
    for victim in files.victims:
        task = json.dumps([victim["task"], victim.get("task_spec")], sort_keys=True)
        by_task[task].append(victim)
        home[str(victim["key"])] = task
    cells: dict[str, list[Record]] = defaultdict(list)
    for record in files.defenses:
        if str(record["victim"]) in home:  # else of a victim that an earlier, different grid left here
            cells[home[str(record["victim"])]].append(record)
    labels = _labels(list(by_task))
    grid = files.grid
    same, differ = split([*files.victims, *files.defenses])
    mixed = tuple(name for name in differ if name != PRECISION)
    last = {str(k): str(v) for k, v in (grid.get("versions") or {}).items()}
    return Results(
        question=str(grid.get("question") or "Which defenses hold against which attacks?"),
        command=str(grid.get("command") or ""),
        preset=grid.get("preset") if isinstance(grid.get("preset"), str) else None,
        created=str(grid.get("created") or ""),
        versions=same if same or differ else last,
        grid=grid.get("grid") or {},
        tasks=tuple(_task(labels[task], victims, cells[task], differ) for task, victims in sorted(by_task.items())),
        problems=tuple(files.problems),
        missing=_missing(grid.get("grid"), len(files.victims) + len(files.defenses)),
        foreign=files.foreign,
        mixed=mixed,
        harness=grid["harness"] if isinstance(grid.get("harness"), int) else 0,
    )


def _missing(grid: Any, found: int) -> int:
    """Cells that the grid asks for beyond those found; 0 where the store does not say what it asks for."""
    kinds = ("tasks", "attacks", "defenses", "seeds")
    if not isinstance(grid, dict) or not all(isinstance(grid.get(k), list) for k in kinds):
        return 0
    benign = sum(isinstance(a, dict) and a.get("name") == BENIGN for a in grid["attacks"])
    seeds, extra = set(grid["seeds"]), set(grid.get("clean_seeds") or ())
    victims: int = len(grid["tasks"]) * ((len(grid["attacks"]) - benign) * len(seeds) + benign * len(seeds | extra))
    asked: int = victims * (1 + len(grid["defenses"]))
    return max(0, asked - found)


def _task(label: str, victims: list[Record], records: list[Record], differ: tuple[str, ...]) -> TaskResults:
    by_attack = _grouped(victims, "attack_label").values()
    attacks = [replace(attack_of(group), made_with=of_row(group, differ)) for group in by_attack]
    by_defense = _grouped(records, "defense_label", "role")
    found, defenses = [], []
    for group in by_defense.values():
        benign = [r for r in group if r["attack"] == BENIGN]
        mine = [cell_of(one, benign) for one in _grouped(group, "attack_label").values()]
        found += mine
        known = [a for a in attacks if a.state == "done" and not a.benign]
        defenses.append(replace(defense_of(group, mine, known), made_with=of_row(group, differ)))
    return TaskResults(
        name=str(victims[0]["task"]),
        label=label,
        attacks=tuple(sorted(attacks, key=_reading_order)),
        defenses=tuple(sorted(defenses, key=lambda d: (list(ROLES).index(d.role) if d.role in ROLES else 9, d.label))),
        cells=tuple(found),
    )


def _reading_order(attack: Attack) -> tuple[bool, str]:
    return attack.benign, attack.label


def _grouped(records: Iterable[Record], *names: str) -> dict[tuple[str, ...], list[Record]]:
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[tuple(str(record[n]) for n in names)].append(record)
    return groups


def _labels(tasks: list[str]) -> dict[str, str]:
    """The name of each task, with the settings that tell tasks of one name apart."""
    named: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        named[json.loads(task)[0]].append(task)
    out: dict[str, str] = {}
    for name, group in named.items():
        settings: list[dict[str, Any]] = [(json.loads(t)[1] or {}).get("params", {}) for t in group]
        differ = [
            k for k in sorted({k for s in settings for k in s}) if len({json.dumps(s.get(k)) for s in settings}) > 1
        ]
        for task, setting in zip(group, settings):
            told = ", ".join(f"{k}={_short(setting.get(k))}" for k in differ)
            out[task] = f"{name} ({told})" if told else name
    return out


def _short(value: Any) -> str:
    return str(value["name"]) if isinstance(value, dict) and "name" in value else str(value)
