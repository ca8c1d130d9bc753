"""A block for a model card: machine-readable `backdoor_scan`, then a short table for people."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torchbands.scanner.alerts import RULES, Level
from torchbands.scanner.outcome import Outcome

from .formatting import ANSWERS, REPAIR_COLUMNS, answers, cost, number, p_of, pair, plain, remarks, repairs, title

_SPECIAL = re.compile(r"([\\`*_\[\]|#~!^$]|^[-+=]|^\d+[.)])")
_LINKS = re.compile(r"(?i)(https?|ftp|mailto|xmpp)(?=:)|\b(www)(?=\.)")


def render(outcome: Outcome, fail_on: Level, error: str) -> str:
    """A fenced block that is JSON and YAML at once, and the same for people."""
    block = json.dumps({"backdoor_scan": card(outcome, fail_on, error)}, indent=2, allow_nan=False)
    out = ["## Backdoor scan", "", f"**{title(outcome)}.** {safe(outcome.sentence(), 4000)}", ""]
    out += [f"The tool failed: {safe(error)}", ""] if error else []
    if tried := repairs(outcome):
        out += [*_table(REPAIR_COLUMNS, [[safe(cell) for cell in row] for row in tried]), ""]
    if rows := [
        [ANSWERS[name][0], safe(p_of(answer)), " ".join(ANSWERS[name][2:])] for name, answer in answers(outcome)
    ]:
        out += [*_table(["answer", "p", "what it may and may not say"], rows), ""]
    if outcome.alerts or outcome.accepted:
        found = [(a, "") for a in outcome.alerts] + [(a, " (accepted by the baseline)") for a in outcome.accepted]
        rows = [[a.level, safe(a.rule, 40), safe(a.subject, 120), safe(a.message) + note] for a, note in found]
        out += [*_table(["level", "rule", "about", "finding"], rows), ""]
    if outcome.ledger:
        rows = [
            [safe(l.view, 60), l.answer, number(l.score), number(l.z, 2), number(l.p, 2), safe(pair(l), 200),
             safe(l.reason, 200)] for l in outcome.ledger
        ]  # fmt: skip
        out += [*_table(["view", "answers", "score", "z", "p", "suspected", "why not"], rows), ""]
    if told := remarks(outcome):
        out += ["How it was read:", "", *(f"- {safe(note, 1000)}" for note in told), ""]
    if outcome.next_steps:
        out += ["What to do next:", "", *(f"- {safe(step)}" for step in outcome.next_steps), ""]
    if outcome.not_covered:
        out += ["Not covered:", "", *(f"- {safe(item)}" for item in outcome.not_covered), ""]
    spent = ", ".join(f"{safe(name)} {safe(amount)}" for name, amount in cost(outcome))
    out += [f"Cost: {spent}.", ""] if spent else []
    return "\n".join([*out, "```yaml", block, "```", ""])


def card(outcome: Outcome, fail_on: Level, error: str) -> dict[str, Any]:
    """The machine-readable part."""
    found = outcome.to_json()
    alerts = found["alerts"] + [a | {"accepted": True} for a in found["accepted"]]
    for alert in alerts:
        rule = RULES.get(alert["rule"])
        alert["atlas"] = rule.atlas if rule else None
        del alert["facts"]
    hashed = "model_sha256" if outcome.subject.kind == "model" else f"{outcome.subject.kind}_sha256"
    return {
        "tool": "torchbands",
        "version": outcome.version,
        "date": outcome.created,
        hashed: outcome.subject.sha256,
        "verdict": outcome.verdict,
        "sentence": found["sentence"],
        "calibration": found["calibration"]
        if outcome.subject.kind != "model"
        else {
            "n_refs": max((a.references for _, a in answers(outcome) if a), default=0),
            "recipe": {k: found["calibration"].get(k) for k in ("architecture", "recipes", "training_rows", "data")},
        },
        "alpha": outcome.alpha,
        "profile": outcome.profile,
        "methods": found["methods"],
        "results": [
            {"answer": ANSWERS[name][0], "p": found[name]["p"], "references": a.references, "smallest_p": a.smallest,
             "reason": a.reason} for name, a in answers(outcome) if a is not None
        ],
        "alerts": alerts,
        "not_covered": found["not_covered"],
        "reasons": found["reasons"],
        "how_it_was_read": remarks(outcome),
        "fail_on": fail_on,
        "error": error,
    }  # fmt: skip


def safe(text: object, most: int = 600) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no links."""
    shown = html.escape(plain(text, most), quote=False)
    return _LINKS.sub(lambda m: f"{m[0][:-1]}<!-- -->{m[0][-1]}", _SPECIAL.sub(_escape, shown)).replace("@", "&#64;")


def _escape(found: re.Match[str]) -> str:
    return f"{found[0][:-1]}\\{found[0][-1]}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
