"""Turns the records of one task into its attacks, cells and defenses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torchbands.core.errors import BandsError
from torchbands.core.registry import find

from .fragments import harmless
from .means import between_models, means
from .overall import over_attacks, scores
from .read import Record
from .results import Attack, Cell, Defense, Histogram, Sample
from .roles import ROLES, quality

BENIGN = "clean"


def attack_of(records: Sequence[Record]) -> Attack:
    """One attack from its victims' records, one per seed."""
    records = sorted(records, key=lambda r: int(r["seed"]))
    made = [r for r in records if r["status"] == "done"]
    valid = [r for r in made if r.get("valid") is not False]
    counted = valid or made
    metrics, undefined = means(_tables(counted, "metrics"))
    shown = next((r for r in counted if r.get("samples")), None)
    benign = records[0]["attack"] == BENIGN
    return Attack(
        label=str(records[0]["attack_label"]),
        name=str(records[0]["attack"]),
        benign=benign,
        state=_state(records, made, valid),
        seeds=tuple(int(r["seed"]) for r in counted),
        valid=None if benign else len(valid),
        trained=len(made),
        reason=_reasons(records),
        metrics=metrics,
        undefined=undefined,
        stealth={axis: means(_axis(counted, axis))[0] for axis in ("input", "feature", "parameter")},
        cost=means(_tables(counted, "cost"))[0],
        samples=tuple(_sample(s) for s in shown["samples"]) if shown else (),
        trigger=harmless(str(shown.get("trigger_html") or "")) if shown else "",
        unreproduced=unreproduced("attack", str(records[0]["attack"])),
    )


def cell_of(records: Sequence[Record], benign: Sequence[Record]) -> Cell:
    """One defense on one attack from its records, one per seed. `benign`: the defense on models without a backdoor."""
    records = sorted(records, key=lambda r: int(r["seed"]))
    first, role = records[0], str(records[0]["role"])
    done = [r for r in records if r["status"] == "done"]
    valid = [r for r in done if r.get("valid") is not False]
    counted = valid or done
    metrics, undefined = means(_tables(counted, "metrics"))
    is_benign = first["attack"] == BENIGN
    if role == "model-detector" and not is_benign:
        found = between_models(scores(counted), scores(benign))
        if found is None:
            undefined["auroc"] = "needs scores of models with and without a backdoor"
        else:
            metrics["auroc"] = found
    state = _state(records, done, valid)
    pictured = next((r for r in counted if r.get("recovered_html")), None)
    return Cell(
        attack=str(first["attack_label"]),
        defense=str(first["defense_label"]),
        role=role,
        state=state,
        seeds=tuple(int(r["seed"]) for r in counted),
        metrics=metrics,
        undefined=undefined,
        reason=_reasons(records if state == "done" else [r for r in records if r["status"] != "done"]),
        quality=quality(role, metrics, is_benign) if state == "done" else None,
        cost=means(_tables(done, "cost"))[0],
        histogram=next((h for r in counted if (h := _histogram(r.get("scores")))), None),
        recovered=harmless(str(pictured["recovered_html"])) if pictured else "",
        true=harmless(str(pictured.get("true_html") or "")) if pictured else "",
    )


def defense_of(records: Sequence[Record], cells: Sequence[Cell], attacks: Sequence[Attack]) -> Defense:
    """One defense over the attacks that took hold, from its records and its cells."""
    first = records[0]
    role = ROLES.get(str(first["role"]))
    told = None if role is None else over_attacks(records, role, [a.label for a in attacks])
    return Defense(
        label=str(first["defense_label"]),
        name=str(first["defense"]),
        role=str(first["role"]),
        mean=told.mean if told else None,
        worst=told.worst if told else None,
        judged=told.judged if told else (),
        failed=told.failed if told else 0,
        about="; ".join(dict.fromkeys(str(r["about"]) for r in records if r.get("about"))),
        unasked=tuple(a.label for a in attacks if told is None or a.label not in told.judged),
        cost=means(_tables([r for r in records if r["status"] == "done"], "cost"))[0],
        unreproduced=unreproduced(str(first["role"]), str(first["defense"])),
    )


def unreproduced(role: str, name: str) -> str:
    """What the installed method says of itself: a store may be older than the finding. Empty for an unknown one."""
    try:
        return find(name, role).unreproduced
    except BandsError:
        return ""


def _tables(records: Iterable[Record], name: str) -> list[dict[str, Any]]:
    return [r[name] for r in records if isinstance(r.get(name), dict)]


def _axis(records: Iterable[Record], axis: str) -> list[dict[str, Any]]:
    return [table[axis] for table in _tables(records, "stealth") if isinstance(table.get(axis), dict)]


def _state(records: Sequence[Record], done: Sequence[Record], valid: Sequence[Record]) -> str:
    if valid:
        return "done"
    if done:
        return "invalid"
    return "failed" if any(r["status"] == "failed" for r in records) else "not-applicable"


def _reasons(records: Sequence[Record]) -> str:
    """Why seeds are missing from the numbers, each reason once with its seeds."""
    by_reason: dict[str, list[str]] = {}
    for r in records:
        if r["status"] != "done":
            by_reason.setdefault(str(r.get("reason") or r["status"]), []).append(str(r["seed"]))
        elif r.get("valid") is False:
            why = str(r.get("invalid_reason") or "the attack did not take")
            by_reason.setdefault(why, []).append(str(r["seed"]))
    if len(by_reason) == 1 and len(next(iter(by_reason.values()))) == len(records):
        return next(iter(by_reason))
    return "; ".join(f"{why} (seed {', '.join(seeds)})" for why, seeds in by_reason.items())


def _sample(raw: dict[str, Any]) -> Sample:
    pictures = [harmless(str(raw.get(k) or "")) for k in ("original", "triggered", "difference")]
    return Sample(pictures[0], pictures[1], pictures[2], str(raw.get("label", "")), str(raw.get("becomes", "")))


def _histogram(raw: Any) -> Histogram | None:
    if not isinstance(raw, dict):
        return None
    columns = [tuple(float(v) for v in raw.get(k) or ()) for k in ("clean", "triggered", "edges")]
    whole = len(columns[0]) == len(columns[1]) == len(columns[2]) - 1
    return Histogram(*columns) if whole and columns[0] else None
