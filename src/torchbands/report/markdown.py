"""The results as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from torchbands.core.words import shown

from . import glossary, summary
from .glossary import term
from .results import Attack, Cell, Defense, Results, TaskResults
from .roles import ROLES, RULES
from .table import Note, cell_view, costs_of, facts_of, notes_of, plain, remarks_on, title_of, unreproduced_of

_STATES = {"invalid": "did not take", "not-applicable": "n/a", "failed": "failed", "missing": "not run"}
_EFFECT = ("ca", "asr", "control_asr", "lift", "ra")
_SPECIAL = re.compile(r"([\\`*_\[\]|#~!])")


def render(results: Results) -> str:
    """Results as a Markdown document; every string of the store is escaped."""
    out = [f"# {_safe(results.question)}", ""]
    out += [
        f"- **{lead}**: {_safe(text)}" if lead else f"- {_safe(text)}" for lead, text in summary.sentences(results)
    ] + [""]
    for task in results.tasks:
        out += [f"## {_safe(task.label)}", "", *_verdicts(task), *_attacks(task), *_costs(task)]
    out += ["## How to read it", ""]
    out += [f"- **{m.title}**: {m.about}" for n in ("ca", *_EFFECT[1:], "auroc", "der", "rule_fpr") for m in [term(n)]]
    out += [f"- {rule}" for rule in RULES.values()] + [""]
    command = shown(results.command, 4000).replace("`", "'")
    versions = ", ".join(f"{_safe(k)} {_safe(v)}" for k, v in results.versions.items())
    out += [
        "## How it was made",
        "",
        f"`{command}`" if command else "",
        "",
        f"{versions}. {_safe(results.created)}",
        "",
    ]
    for task in results.tasks:
        out += _made_with(task)
    return "\n".join(out)


def _verdicts(task: TaskResults) -> list[str]:
    out: list[str] = []
    for role in task.roles():
        about, mine = ROLES[role], task.of_role(role)
        notes = notes_of((task.cell(a, d), a.benign) for a in task.attacks for d in mine)
        better = "lower is better" if about.lower_is_better else "higher is better"
        rows = [
            [_name(a), *(_cell(task.cell(a, d), a.benign, notes) for d in mine)] for a in task.attacks if not a.benign
        ]
        rows.append(["**mean**", *(plain(about.headline, d.mean) for d in mine)])
        worst = [f"{plain(about.headline, d.worst[1])} ({_safe(d.worst[0])})" if d.worst else "–" for d in mine]
        rows.append(["**worst attack**", *worst])
        rows += [[_name(a), *(_cell(task.cell(a, d), True, notes) for d in mine)] for a in task.attacks if a.benign]
        title = f"{about.asks} {term(about.headline).title}, {better}; without an attack: {term(about.benign).title}."
        out += [f"### {about.title}", "", title, "", *_table(["attack", *(_title(d) for d in mine)], rows), ""]
        out += [f"{n.number}. {_safe(n.text)}" for n in notes.values()] + ([""] if notes else [])
        remarks = remarks_on(role, mine)
        out += [f"- {_safe(text)}" for text in remarks] + ([""] if remarks else [])
        out += _unreproduced([*task.attacks, *mine])
    return out


def _made_with(task: TaskResults) -> list[str]:
    """What each row was made with, where that is not the same for all."""
    rows: list[Attack | Defense] = [*task.attacks, *task.defenses]
    names = facts_of(rows)
    if not names:
        return []
    body = [[_safe(row.label), *(_safe(row.made_with.get(n, "–")) for n in names)] for row in rows]
    return [f"Not the same for all on {_safe(task.label)}:", "", *_table(["row", *map(_safe, names)], body), ""]


def _cell(cell: Cell, benign: bool, notes: dict[str, Note]) -> str:
    view = cell_view(cell, benign, notes)
    head = " ".join(filter(None, [view.value, view.spread, view.word])) or _STATES.get(view.state, "–")
    parts = [head, *(["attack did not take"] if view.state == "invalid" else []), *view.beside]
    return _safe(", ".join(parts)) + (f" (note {view.note})" if view.note else "")


def _attacks(task: TaskResults) -> list[str]:
    costs = costs_of(task.attacks)
    stealth = [f"stealth: {axis}" for axis in ("input", "feature", "parameter")]
    head = ["attack", *(term(n).title for n in _EFFECT), *stealth, *(term(n).title for n in costs)]
    rows = [
        [
            _name(a),
            *(plain(n, a.metrics.get(n)) for n in _EFFECT),
            *(plain("stealth", a.stealth.get(axis, {}).get("stealth")) for axis in ("input", "feature", "parameter")),
            *(plain(n, a.cost.get(n)) for n in costs),
        ]
        for a in task.attacks
    ]
    why = [f"- {_safe(a.label)}: {_safe(a.reason)}" for a in task.attacks if a.reason]
    return ["### Attacks", "", *_table(head, rows), "", *why, *([""] if why else []), *_unreproduced(task.attacks)]


def _costs(task: TaskResults) -> list[str]:
    costs = costs_of(task.defenses)
    rows = [[_title(d), *(plain(n, d.cost.get(n)) for n in costs)] for d in task.defenses]
    if not rows:
        return []
    head = ["defense", *(glossary.term(n).title for n in costs)]
    return ["### Cost", "", *_table(head, rows), "", *_unreproduced(task.defenses)]


def _unreproduced(methods: Sequence[Attack | Defense]) -> list[str]:
    found = unreproduced_of(methods)
    said = [f"- {_safe(name)} is unreproduced: {_safe(why)}" for name, why in found]
    return [*said, ""] if said else []


def _name(attack: Attack) -> str:
    note = "" if attack.state == "done" else f" ({_STATES[attack.state]})"
    return _title(attack) + note


def _title(method: Attack | Defense) -> str:
    return _safe(title_of(method))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def _safe(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", html.escape(shown(text, 4000), quote=False))
