"""For a terminal: no colours, no control characters, nothing cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from torchbands.scanner.alerts import RULES, Alert, Level
from torchbands.scanner.outcome import Outcome

from .formatting import (
    ANSWERS,
    REPAIR_COLUMNS,
    answers,
    calibration,
    cost,
    facts,
    number,
    p_of,
    pair,
    plain,
    remarks,
    repairs,
    strength,
    suspected,
    title,
)


def render(outcome: Outcome, fail_on: Level, error: str) -> str:
    """The sentence, the answers, what was found, the ledger behind it, and what was not covered."""
    subject = outcome.subject
    kind = f" ({plain(subject.format, 60)})" if subject.format else ""
    out = [f"{subject.kind}: {plain(subject.path) or '(given in Python)'}{kind}"]
    out += [f"sha256 {plain(subject.sha256, 64)}"] if subject.sha256 else []
    out += ["", title(outcome).upper(), *_wrapped(plain(outcome.sentence(), 4000))]
    out += ["", *_wrapped(f"the tool failed: {plain(error)}")] if error else []
    if outcome.repair is not None:
        where = f"written to {plain(outcome.repair['folder'])}" if outcome.repair["folder"] else "no model was written"
        out += ["", *_wrapped(where), "repairs that were tried"]
        for row in repairs(outcome):
            columns = zip(REPAIR_COLUMNS[2:], row[2:], strict=True)
            out += _listed([f"{row[0]}: {row[1]}; " + ", ".join(f"{name} {cell}" for name, cell in columns)])
        out += ["", f"the scan {'after' if outcome.repair['folder'] else 'before'} the repair"]
    out += _answers(outcome)
    out += _alerts("alerts", outcome.alerts, subject.sha256)
    out += _alerts("accepted by the baseline", outcome.accepted, subject.sha256)
    out += _ledger(outcome)
    if outcome.calibration and outcome.subject.kind != "model":
        out += ["", "numbers", *(f"  {name}: {value}" for name, value in facts(outcome.calibration))]
    if outcome.verdict != "inconclusive" and outcome.reasons:
        out += ["", "why the rest is open", *_listed(outcome.reasons)]
    if told := remarks(outcome):
        out += ["", "how it was read", *_listed(told)]
    if outcome.next_steps:
        out += ["", "what to do next", *_steps(outcome.next_steps)]
    if outcome.calibration and outcome.subject.kind == "model":
        told = [
            f"{name}: {value}" for name, value in calibration(outcome) if name in ("on clean rows", "left-out recipes")
        ]
        out += ["", "references", *_listed(told)] if told else []
    if outcome.not_covered:
        out += ["", "not covered", *_listed(outcome.not_covered)]
    spent = ", ".join(f"{name} {amount}" for name, amount in cost(outcome))
    out += ["", *_wrapped(f"cost: {spent}")] if spent else []
    settings = f"profile {plain(outcome.profile)}, alpha {number(outcome.alpha)}, seed {outcome.seed}"
    version = f", torchbands {plain(outcome.version)}" if outcome.version else ""
    out += [f"{settings}{version}{', ' + plain(outcome.created) if outcome.created else ''}"]
    return "\n".join(out) + "\n"


def _answers(outcome: Outcome) -> list[str]:
    out: list[str] = []
    for name, answer in answers(outcome):
        title, _, may, may_not = ANSWERS[name]
        said = p_of(answer)
        if answer is not None and answer.p is not None and (far := strength(outcome, name)):
            said += f"; {far}"
        out += ["", *_wrapped(f"{title} = {said}", "    "), *_wrapped(f"{may} {may_not}", "    ", "    ")]
    ends = [plain(name, 80) for name in (outcome.source, outcome.target) if name is not None]
    return [*out, "", f"{suspected(outcome)}: {' → '.join(ends)}"] if ends else out


def _alerts(title: str, alerts: Sequence[Alert], sha256: str) -> list[str]:
    out = ["", title] if alerts else []
    for alert in alerts:
        rule = RULES.get(alert.rule)
        named = f"{rule.name}, {rule.atlas}" if rule else ""
        about = f" [{plain(alert.subject, 120)}]" if alert.subject else ""
        out += _wrapped(f"{alert.level.upper():<7}{plain(alert.rule, 40)} ({named}){about}", "  ", "         ")
        out += _wrapped(plain(alert.message), "         ", "         ")
        out += [f"         fingerprint {alert.fingerprint(sha256)}"]
    return out


def _ledger(outcome: Outcome) -> list[str]:
    if not outcome.ledger:
        return []
    rows = [("view", "answers", "score", "z", "p", "suspected", "seconds", "")]
    rows += [
        (plain(l.view, 60), l.answer, number(l.score), number(l.z, 2), number(l.p, 2), pair(l), number(l.seconds, 2),
         plain(l.reason, 200)) for l in outcome.ledger
    ]  # fmt: skip
    return ["", "ledger", *table(rows, right=(2, 3, 4, 6))]


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows in columns, two spaces apart."""
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [
            " " * (w - cell_len(cell)) + cell if i in right else cell + " " * (w - cell_len(cell))
            for i, (cell, w) in enumerate(zip(row, widths))
        ]
        out.append("  " + "  ".join(cells).rstrip())
    return out


def _listed(items: Sequence[str]) -> list[str]:
    return [line for item in items for line in _wrapped(f"- {plain(item)}", "  ", "    ")]


def _steps(items: Sequence[str]) -> list[str]:
    """Like `_listed`; what holds a command stays one line, so that it can be pasted."""
    return [line for item in items for line in ([f"  - {plain(item, 4000)}"] if "bands " in item else _listed([item]))]


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    rest = first if rest is None else rest
    return textwrap.wrap(text, 110, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
