"""The files of a store, read without trusting them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchbands.bench.store import altered
from torchbands.core.errors import InputError
from torchbands.core.method import key_of
from torchbands.zoo.files import read_text

Record = dict[str, Any]
#: Attack success that a victim needs where the grid names no floor.
FLOOR = 0.5
_VICTIM = ("key", "task", "attack", "attack_label", "seed", "status")
_DEFENSE = (*_VICTIM, "victim", "defense", "defense_label", "role")


@dataclass(frozen=True)
class Files:
    """A store's records; `problems` names what could not be read, `foreign` counts records of the grid's own methods
    that were made with other data, on another kind of device or by another harness, and are left out."""

    grid: Record
    victims: list[Record]
    defenses: list[Record]
    problems: list[str]
    foreign: int = 0


def read(store: Path) -> Files:
    """Read a store directory.

    Raises:
        InputError: it is not one.
    """
    if not (store / "grid.json").is_file():
        raise InputError(
            f"{store} holds no benchmark: {'there is no grid.json in it' if store.is_dir() else 'no such directory'}",
            hint=f"run one: bands bench run quick --store {store}",
        )
    problems: list[str] = []
    grid = _load(store / "grid.json", (), problems)
    if grid is None:
        raise InputError(
            f"{store / 'grid.json'} is damaged", hint="run the same `bands bench run` again to write it anew"
        )
    found = [*store.glob("outcomes/*.json"), *store.glob("victims/*/record.json")]
    victims = [r for r in (_load(p, _VICTIM, problems) for p in sorted(found)) if r is not None]
    paths = sorted(store.glob("records/*.json"))
    defenses = [r for r in (_load(p, _DEFENSE, problems) for p in paths) if r is not None]
    victims = _asked(_asked(victims, grid, "task"), grid, "attack")
    defenses = _asked(defenses, grid, "defense")
    asked = _keys(grid)
    if asked is not None:
        mine = [r for r in (*victims, *defenses) if r["key"] in asked]
        known = {_identity(r) for r in mine}
        foreign = sum(r["key"] not in asked and _identity(r) not in known for r in (*victims, *defenses))
        victims, defenses = ([r for r in group if r["key"] in asked] for group in (victims, defenses))
    else:
        foreign = 0
    _judge(victims, defenses, grid)
    return Files(grid, victims, defenses, problems, foreign)


def _keys(grid: Record) -> set[str] | None:
    """The keys that the last run asked for; None in a store that does not say."""
    keys = grid.get("keys")
    kinds = [keys.get(k) for k in ("outcomes", "records")] if isinstance(keys, dict) else [None]
    return {str(k) for kind in kinds if kind for k in kind} if all(isinstance(k, list) for k in kinds) else None


def _identity(record: Record) -> str:
    return json.dumps(record.get("identity"), sort_keys=True)


def _judge(victims: list[Record], defenses: list[Record], grid: Record) -> None:
    """Apply the grid's floor: an attack that did not take proves nothing about a defense.

    Sets `valid` (None where no backdoor was planted, or without a victim) and `invalid_reason` on every record, and on
    those of defenses `asked`: False where there was no victim to ask about.
    """
    spec = grid.get("grid")
    floor = spec.get("min_asr") if isinstance(spec, dict) else None
    floor = floor if isinstance(floor, (int, float)) else FLOOR
    told: dict[str, tuple[bool | None, str | None]] = {}
    for victim in victims:
        valid, reason = None, None
        if victim.get("backdoor", victim["attack"] != "clean") and victim["status"] == "done":
            asr = (victim.get("metrics") or {}).get("asr")
            valid = isinstance(asr, (int, float)) and asr >= floor
            shown = f"{asr:.1%}" if isinstance(asr, (int, float)) else "undefined"
            reason = None if valid else f"attack success {shown} is under the floor of {floor:.0%}"
        told[str(victim["key"])] = valid, reason
        victim["valid"], victim["invalid_reason"] = valid, reason
    made = {str(v["key"]) for v in victims if v["status"] == "done"}
    for record in defenses:
        record["valid"], record["invalid_reason"] = told.get(str(record["victim"]), (None, None))
        record["asked"] = str(record["victim"]) in made


def _asked(records: list[Record], grid: Record, kind: str) -> list[Record]:
    """Each key once, without records of a method that an earlier, different grid left in the same store."""
    unique = list({r["key"]: r for r in records}.values())
    spec = grid.get("grid")
    listed = spec.get(f"{kind}s") if isinstance(spec, dict) else None
    if not isinstance(listed, list) or not all(isinstance(m, dict) for m in listed):
        return unique
    wanted = {key_of(method) for method in listed}
    return [r for r in unique if r.get(f"{kind}_spec") is None or key_of(r[f"{kind}_spec"]) in wanted]


def _load(path: Path, needed: tuple[str, ...], problems: list[str]) -> Record | None:
    if path.name.startswith("."):
        return None
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name} could not be read: {error}")
        return None
    missing = [k for k in needed if k not in found] if isinstance(found, dict) else list(needed)
    if missing or not isinstance(found, dict):
        problems.append(f"{path.name} is not a record: it lacks {', '.join(missing) or 'an object'}")
        return None
    if needed and path.name != "record.json" and (why := altered(found, path)):
        problems.append(f"{path.name} is not believed: {why}; the same `bands bench run` makes it again")
        return None
    return found
