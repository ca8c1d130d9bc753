"""Words and numbers as shown in every format. Text from a suspect is escaped and shortened first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torchbands.core.words import shown
from torchbands.scanner.behaviour import all_of
from torchbands.scanner.left_out import in_words
from torchbands.scanner.outcome import Answer, LedgerLine, Outcome
from torchbands.scanner.recipes import told

LONGEST = 600

TITLES = {
    "indicated": "Indicators found",
    "unusual": "Unusual",
    "none": "No indicator found",
    "inconclusive": "Inconclusive",
}

#: question, what it may say, what it may not say
ANSWERS = {
    "trigger": (
        "p_trigger",
        "Does some input change reach a class far more cheaply than in the reference models?",
        "May say: indicators of a backdoor.",
        "May not say: there is no backdoor. A trigger that these searches cannot express stays unseen.",
    ),
    "recipe": (
        "p_recipe",
        "Do parameters and behaviour look like those of the reference models?",
        "May say: unusual training data, or another recipe.",
        "May not say: backdoor. Label noise, imbalance or augmentation look the same to these views.",
    ),
}


def plain(text: object, most: int = LONGEST) -> str:
    """One line of visible characters, by the one rule of `core.words`."""
    return shown(text, most)


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits with a true minus sign; a dash for nothing, or for what is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return shown.replace("-", "−")


def p_of(answer: Answer | None) -> str:
    """A p-value with its references, or why there is none."""
    if answer is None:
        return "not asked"
    if answer.p is None:
        return f"not answered: {plain(answer.reason) or 'no reason was given'}"
    return f"{number(answer.p)} ({references_of(answer)})"


def references_of(answer: Answer) -> str:
    """How many references, and the smallest p that they can give."""
    count = f"{answer.references} reference model{'' if answer.references == 1 else 's'}"
    return f"{count}, smallest possible {number(answer.smallest)}"


def strength(outcome: Outcome, name: str) -> str:
    """How far the strongest view of an answer stands out, which a p at its floor does not tell; empty if unknown."""
    known = [(line.z, line.view) for line in outcome.ledger if line.answer == name and line.z is not None]
    if not known:
        return ""
    z, view = max(known)
    return f"strongest view: {plain(view, 60)}, z = {number(z, 3)}"


def answers(outcome: Outcome) -> list[tuple[str, Answer | None]]:
    """The two answers of a model scan; none for data and inputs, unless they were given."""
    both = [("trigger", outcome.trigger), ("recipe", outcome.recipe)]
    return both if outcome.subject.kind == "model" else [(k, a) for k, a in both if a is not None]


def pair(line: LedgerLine) -> str:
    """Source and target of a ledger line."""
    return " → ".join(plain(name, 80) for name in (line.source, line.target) if name is not None)


def suspected(outcome: Outcome) -> str:
    """How sure the named classes are."""
    asked = outcome.trigger is not None and outcome.trigger.p is not None
    return "suspected" if asked or outcome.subject.kind != "model" else "strongest, but not calibrated"


def cost(outcome: Outcome) -> list[tuple[str, str]]:
    """The cost as (name, amount with its unit)."""
    known = {"seconds": ("time", " s"), "cpu_seconds": ("CPU time", " s"), "peak_mb": ("peak memory", " MB")}
    out = []
    for name, value in outcome.cost.items():
        amount = number(float(value)) if isinstance(value, (int, float)) else plain(value)
        title, unit = known.get(name, (plain(name, 60).replace("_", " "), ""))
        out.append((title, amount + unit))
    return out


def remarks(outcome: Outcome) -> list[str]:
    """How the suspect or the rows were read: what was guessed, dropped or chosen, one line each."""
    known = outcome.subject.facts
    told = [str(note) for note in known.get("notes") or ()]
    if where := known.get("weights_in"):
        told.insert(0, f"the weights that are judged are those under {where}")
    if refused := known.get("refused_first"):
        told.append(f"{known.get('refused', len(refused))} files or rows were left out, such as {refused[0]}")
    return [plain(note, 1000) for note in told]


def facts(given: Mapping[str, Any], most: int = 40) -> list[tuple[str, str]]:
    """The first facts as (name, value), each one short line."""
    told = {name: value for name, value in given.items() if value not in ("", [], (), {})}
    out = [(plain(name, 80).replace("_", " "), plain(_compact(v), LONGEST)) for name, v in list(told.items())[:most]]
    return out + ([("…", f"{len(told) - most} more")] if len(told) > most else [])


def title(outcome: Outcome) -> str:
    """The verdict, or what became of a repair, in two or three words."""
    return TITLES[outcome.verdict] if outcome.repair is None else plain(outcome.repair["title"])


#: The columns of the table of repairs.
REPAIR_COLUMNS = ("repair", "verdict", "accuracy", "lost (95 % interval)", "trigger works", "p_trigger", "why")


def repairs(outcome: Outcome) -> list[tuple[str, ...]]:
    """Every repair that was tried: before and after."""
    steps = () if outcome.repair is None else outcome.repair["steps"]

    def change(step: Mapping[str, Any], name: str) -> str:
        before, after = step[f"{name} before"], step[f"{name} after"]
        return "–" if before is None or after is None else f"{before:.1%} → {after:.1%}"

    out: list[tuple[str, ...]] = []
    for step in steps:
        lost = step["accuracy lost"]
        interval = "–" if lost is None else f"{lost[0]:+.1%} ({lost[1]:+.1%} to {lost[2]:+.1%})".replace("-", "−")
        p = f"{number(step['p before'])} → {number(step['p after'])}"
        told = (plain(step["repair"], 120), step["verdict"], change(step, "accuracy"), interval)
        out.append((*told, change(step, "trigger"), p, plain(step["why"], 300)))
    return out


def calibration(outcome: Outcome) -> list[tuple[str, str]]:
    """What the references are and how far they can be trusted, in words."""
    given = dict(outcome.calibration)
    out: list[tuple[str, str]] = []
    if isinstance(recipes := given.pop("recipes", None), list):
        counts = given.pop("per_recipe", [])
        each = [f"{told(r)}{f' × {counts[i]}' if i < len(counts) else ''}" for i, r in enumerate(recipes)]
        out.append(("recipes", plain("; ".join(each))))
    if behaves := given.pop("behaviour", None):
        out.append(("on clean rows", plain(all_of(behaves))))
    if unseen := given.pop("left_out_recipes", None):
        out.append(("left-out recipes", plain(in_words(unseen))))
    if isinstance(span := given.pop("accuracy", None), list) and len(span) == 2:
        out.append(("accuracy of references", " to ".join(f"{float(a):.1%}" for a in span)))
    network = given.pop("architecture", None)
    if network is not None:
        out.append(("architecture", plain(told(network) if isinstance(network, Mapping) else network, 300)))
    return out + facts(given)


#: Characters that a list or table of facts may take before the rest of it is counted.
_ROOM = 300


def _compact(value: object, deep: bool = False) -> str:
    """Numbers, names, and lists and tables of them, in words; what does not fit is counted, never cut."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        parts = [f"{str(name).replace('_', ' ')} {_compact(v, True)}".rstrip() for name, v in value.items()]
        return f"({_joined(parts, ', ')})" if deep else _joined(parts, ", ")
    if isinstance(value, (list, tuple, set, frozenset)):
        flat = not any(isinstance(v, (Mapping, list, tuple)) for v in value)
        return _joined([_compact(v, not flat) for v in value], ", " if flat else "; ") or "none"
    return str(value)


def _joined(parts: Sequence[str], by: str) -> str:
    """As many of the parts as there is room for, and how many more there are."""
    used = 0
    for kept, part in enumerate(parts):
        used += len(part) + len(by)
        if kept and used > _ROOM:
            return f"{by.join(parts[:kept])} and {len(parts) - kept} more"
    return by.join(parts)
