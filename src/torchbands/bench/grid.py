"""The grid of a benchmark: tasks x attacks x seeds, and defenses on each victim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from torchbands.core.attack import Attack
from torchbands.core.devices import default_device
from torchbands.core.errors import InputError, UnknownName
from torchbands.core.method import DEFENSE_ROLES, Method, key_of
from torchbands.core.model import dtype_name, fast_dtype
from torchbands.core.registry import build
from torchbands.core.task import Task

_KEYS = ("question", "tasks", "attacks", "defenses", "seeds", "clean_seeds", "min_asr")


#: Of what runs the cells. Raised when it changes the numbers of many methods at once (2: float32 unless one asks).
HARNESS = 2


class Identity:
    """Everything besides a cell's spec that affects results: harness version, data, device, meaning of "fast" on it.

    The data of a task are fingerprinted once, when they are first asked for.
    """

    def __init__(self) -> None:
        self._data: dict[str, str] = {}

    def of(self, task: Task) -> dict[str, str]:
        if (key := task.key()) not in self._data:
            self._data[key] = task.fingerprint()
        device = default_device()
        told = {"data": self._data[key], "device": device.type, "fast": dtype_name(fast_dtype(device))}
        return {"harness": str(HARNESS), **told}


@dataclass(frozen=True)
class VictimCell:
    """One training."""

    task: Task
    attack: Attack
    seed: int
    identity: Identity = field(default_factory=Identity, compare=False, repr=False)

    @property
    def key(self) -> str:
        return key_of([self.task.spec(), self.attack.spec(), self.seed, self.identity.of(self.task)])


@dataclass(frozen=True)
class DefenseCell:
    """One defense on one victim."""

    victim: VictimCell
    defense: Method

    @property
    def key(self) -> str:
        return key_of([self.victim.key, self.defense.spec()])


@dataclass(frozen=True)
class Grid:
    """A benchmark as plain data.

    Attributes:
        question: what the reader wants to know, in plain words.
        clean_seeds: seeds of the never-poisoned victims; a population has more of them. They include `seeds`.
        min_asr: a victim below this attack success rate is called invalid by the report and leaves the means. It is
            applied whenever a report is written, and never stored.
    """

    question: str
    tasks: tuple[Task, ...]
    attacks: tuple[Attack, ...]
    defenses: tuple[Method, ...]
    seeds: tuple[int, ...]
    clean_seeds: tuple[int, ...] = ()
    min_asr: float = 0.5

    def victims(self) -> list[VictimCell]:
        """Clean victims first: every other cell of the same task and seed needs them as its control."""
        clean_seeds, identity = sorted({*self.seeds, *self.clean_seeds}), Identity()
        cells = [
            VictimCell(task, attack, seed, identity)
            for task in self.tasks
            for attack in self.attacks
            for seed in (clean_seeds if attack.name == "clean" else self.seeds)
        ]
        return sorted(cells, key=lambda cell: (cell.attack.name != "clean", cell.task.name, cell.seed))

    def defense_cells(self, victims: Iterable[VictimCell]) -> Iterator[DefenseCell]:
        for victim in victims:
            for defense in self.defenses:
                yield DefenseCell(victim, defense)

    def spec(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "tasks": [t.spec() for t in self.tasks],
            "attacks": [a.spec() for a in self.attacks],
            "defenses": [d.spec() for d in self.defenses],
            "seeds": list(self.seeds),
            "clean_seeds": list(self.clean_seeds),
            "min_asr": self.min_asr,
        }


def presets() -> list[str]:
    """Names of the grids shipped with the package."""
    folder = files("torchbands.bench") / "presets"
    return sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json"))


def load_grid(source: str | Path | Mapping[str, Any]) -> Grid:
    """A grid from a preset's name, a JSON file, or an object.

    The clean attack (poison rate 0) is always in the grid, since every triggered number needs it as its control.
    """
    raw = source if isinstance(source, Mapping) else _read(str(source))
    origin = None if isinstance(source, Mapping) or str(source) in presets() else Path(source)
    for key in raw:
        if key not in _KEYS:
            raise UnknownName("key of a grid", str(key), _KEYS)
    tasks = tuple(_method(t, "task", origin) for t in _list(raw, "tasks"))
    attacks = [_method(a, "attack", origin) for a in _list(raw, "attacks")]
    if not any(a.name == "clean" for a in attacks):
        attacks.insert(0, build("clean", "attack"))
    defenses = tuple(build(d, origin=origin) for d in raw.get("defenses", []))
    for defense in defenses:
        if defense.role not in DEFENSE_ROLES:
            raise InputError(f"{defense.name} is a {defense.role}, not a defense", hint="see: bands list")
    seeds = _seeds(raw.get("seeds", [0, 1, 2]), "seeds")
    if not seeds:
        raise InputError("seeds is empty: nothing would be run")
    return Grid(
        question=str(raw.get("question", "Which defenses hold against which attacks?")),
        tasks=tuple(t for t in tasks if isinstance(t, Task)),
        attacks=tuple(a for a in attacks if isinstance(a, Attack)),
        defenses=defenses,
        seeds=seeds,
        clean_seeds=_seeds(raw.get("clean_seeds", []), "clean_seeds"),
        min_asr=float(raw.get("min_asr", 0.5)),
    )


def _read(source: str) -> Mapping[str, Any]:
    path = Path(source)
    if source in presets():
        text = (files("torchbands.bench") / "presets" / f"{source}.json").read_text("utf-8")
    elif path.is_file():
        text = path.read_text("utf-8")
    else:
        raise UnknownName("preset or file", source, presets(), hint=f"presets: {', '.join(presets())}; or a JSON file")
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InputError(f"{source} is not JSON: {error}") from None
    if not isinstance(raw, Mapping):
        raise InputError(f"{source}: a grid is a JSON object with tasks, attacks, defenses and seeds")
    return raw


def _seeds(value: Any, key: str) -> tuple[int, ...]:
    good = isinstance(value, (list, tuple)) and all(isinstance(s, int) and s >= 0 for s in value)
    if not good or any(isinstance(s, bool) for s in value):
        raise InputError(f"{key} is a list of whole numbers from 0, got {value!r}")
    return tuple(sorted(set(value)))


def _list(raw: Mapping[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    if not isinstance(value, list) or not value:
        raise InputError(f"a grid has a non-empty list {key!r}, got {value!r}")
    return value


def _method(spec: Any, role: str, origin: Path | None) -> Method:
    made = build(spec, role, origin=origin)
    if made.role != role:
        raise InputError(f"{made.name} is a {made.role}, expected a {role}")
    return made
