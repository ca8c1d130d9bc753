"""The results as one HTML file that needs nothing else: no network, no other file, no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from torchbands.core.metric import Interval
from torchbands.core.words import escaped

from . import figures, glossary, roles, summary
from .results import Attack, Cell, Defense, Results, TaskResults
from .roles import ROLES
from .table import (
    CellView,
    Note,
    axes,
    beside,
    cell_view,
    costs_of,
    facts_of,
    lower_first,
    notes_of,
    remarks_on,
    title_of,
    unreproduced_of,
)

_STATES = {"invalid": "did not take", "not-applicable": "n/a", "failed": "failed", "missing": "not run"}


def render(results: Results) -> str:
    """Results as a page. Every string of the store is escaped; pictures pass `fragments.harmless` first."""
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            r=results,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'",
            sentences=summary.sentences(results),
            counts=summary.counts(results),
            grid=json.dumps(results.grid, indent=1, ensure_ascii=False),
            glossary=[glossary.TERMS[k] for k in _GLOSSARY],
            rules=list(roles.RULES.values()),
            ROLES=ROLES,
            EFFECT=_EFFECT,
        )
    )


#: How well an attack works, under heads that are short enough for a laptop's screen.
_EFFECT = (("ca", "CA"), ("asr", "ASR"), ("control_asr", "Control ASR"), ("lift", "Lift"), ("ra", "RA"))
_GLOSSARY = (
    "ca",
    "asr",
    "control_asr",
    "lift",
    "ra",
    "auroc",
    "ties",
    "tpr_at_5",
    "rule_recall",
    "rule_fpr",
    "der",
    "stealth",
)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("torchbands.report"),
        autoescape=True,
        finalize=lambda value: escaped(value, keep="\n\t") if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number_of": lambda value, name: glossary.number(name, value),
        "picture": Markup,
        "lower_first": lower_first,
    }
    made.globals |= {
        "term": glossary.term,
        "shown": glossary.shown,
        "spread": glossary.spread,
        "about": glossary.about,
        "view": view,
        "notes": notes,
        "axes": axes,
        "cost_rows": costs_of,
        "histogram": histogram,
        "found_triggers": found_triggers,
        "detected": detected,
        "footer": footer,
        "states": _STATES,
        "unreproduced_of": unreproduced_of,
        "title_of": title_of,
        "remarks_on": remarks_on,
        "facts_of": facts_of,
    }
    return made


def view(task: TaskResults, attack: Attack, defense: Defense, numbered: dict[str, Note]) -> CellView:
    """How one cell of the verdict table looks."""
    return cell_view(task.cell(attack, defense), attack.benign, numbered)


def notes(task: TaskResults, role: str) -> dict[str, Note]:
    """The reasons under a verdict table, numbered, each once."""
    return notes_of((task.cell(a, d), a.benign) for a in task.attacks for d in task.of_role(role))


def histogram(cell: Cell, benign: bool) -> Markup:
    """The score histogram of a cell."""
    said = ", ".join([f"Suspicion scores of {cell.defense} on {cell.attack}", *beside(cell, benign)])
    return Markup(figures.histogram(cell.histogram, said)) if cell.histogram else Markup("")


def detected(task: TaskResults) -> list[tuple[Defense, list[tuple[Attack, Cell]]]]:
    """Every defense with the cells that have a histogram."""
    out = []
    for defense in task.defenses:
        cells = [(a, c) for a in task.attacks if (c := task.cell(a, defense)).histogram]
        if cells:
            out.append((defense, cells))
    return out


def found_triggers(task: TaskResults) -> list[tuple[Attack, list[Cell]]]:
    """Every attack with the cells that recovered a trigger."""
    out = []
    for attack in task.attacks:
        cells = [c for d in task.defenses if (c := task.cell(attack, d)).recovered]
        if cells:
            out.append((attack, cells))
    return out


def footer(task: TaskResults, defense: Defense) -> tuple[Interval | None, tuple[str, Interval] | None, str, str]:
    """Mean and worst of a defense with the shade of each as a word, which is no better than those of its cells."""
    name = ROLES[defense.role].headline
    cells = {a.label: task.cell(a, defense).quality for a in task.attacks if a.label in defense.judged}
    known = [q for q in cells.values() if q is not None]

    def word(value: Interval | None, most: float | None) -> str:
        found = None if value is None else roles.quality(defense.role, {name: value}, False)
        return roles.word(found if found is None or most is None else min(found, most))

    attack, value = defense.worst or ("", None)
    whole = sum(known) / len(known) if known else None
    return defense.mean, defense.worst, word(defense.mean, whole), word(value, cells.get(attack))


def _asset(name: str) -> str:
    return (files("torchbands.report") / "templates" / name).read_text("utf-8").strip()
