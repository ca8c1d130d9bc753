"""The files of a store, read without trusting them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchbands.core.errors import InputError
from torchbands.core.method import key_of

Record = dict[str, Any]
_VICTIM = ("key", "task", "attack", "attack_label", "seed", "status")
_DEFENSE = (*_VICTIM, "victim", "defense", "defense_label", "role")


@dataclass(frozen=True)
class Files:
    """A store's records; `problems` names what could not be read."""

    grid: Record
    victims: list[Record]
    defenses: list[Record]
    problems: list[str]


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
    return Files(grid, victims, _asked(defenses, grid, "defense"), problems)


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
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} could not be read: {error}")
        return None
    missing = [k for k in needed if k not in found] if isinstance(found, dict) else list(needed)
    if missing or not isinstance(found, dict):
        problems.append(f"{path.name} is no record: it lacks {', '.join(missing) or 'an object'}")
        return None
    return found
