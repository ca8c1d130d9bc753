"""What stands in the cells of the tables, in the same words for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchbands.core.metric import Interval

from .glossary import about, number, shown, spread, term
from .overall import worst_value
from .results import Attack, Cell, Defense
from .roles import ROLES, word

#: Share of ties from which on it stands beside an AUROC.
TOLD_TIES = 0.005
SIGNS = {"strong": "●", "partial": "◐", "weak": "○", "": ""}


@dataclass(frozen=True)
class Note:
    """A reason below a table, under its number."""

    number: int
    text: str


@dataclass(frozen=True)
class CellView:
    """One cell of a verdict table.

    Attributes:
        value, spread: the headline; empty where there is none. sort: what to order by; None sorts last.
        word, shade: the verdict as a word, and as a step from 0 (bad) to 6 (good); None where nothing is judged.
        note: the number of the reason below the table.
    """

    state: str
    value: str
    spread: str
    about: str
    beside: tuple[str, ...]
    word: str
    sign: str
    shade: int | None
    sort: float | None
    note: int | None


def cell_view(cell: Cell, benign: bool, notes: dict[str, Note]) -> CellView:
    """How a cell is shown."""
    role = ROLES[cell.role]
    name = role.benign if benign else role.headline
    value = cell.metrics.get(name)
    said = word(cell.quality)
    note = notes.get(_reason(cell, benign))
    return CellView(
        state=cell.state,
        value="" if value is None else number(name, value.mean),
        spread="" if value is None else spread(name, value),
        about="" if value is None else about(name, value),
        beside=tuple(beside(cell, benign)),
        word=said,
        sign=SIGNS[said],
        shade=None if cell.quality is None else min(6, int(cell.quality * 7)),
        sort=None if value is None else value.mean,
        note=note.number if note else None,
    )


def beside(cell: Cell, benign: bool) -> list[str]:
    """The small print of a cell."""
    m = cell.metrics
    if benign:
        name = ROLES[cell.role].benign
        return [*([lower_first(term(name).title)] if name in m else []), *_beside_benign(cell)]
    if cell.role in ("repair", "training", "aggregator"):
        out = []
        if "asr_before" in m:
            out.append(f"from {number('asr', m['asr_before'].mean)}")
        if "ca" in m:
            change = f" ({_signed(-m['ca_drop'].mean)})" if "ca_drop" in m else ""
            out.append(f"CA {number('ca', m['ca'].mean)}{change}")
        if "der" in m:
            out.append(f"DER {number('der', m['der'].mean)}")
        if "client_auroc" in m:
            out.append(f"clients AUROC {number('client_auroc', m['client_auroc'].mean)}")
        return out
    if cell.role == "model-detector":
        return [
            f"{text} {round(m[name].mean * m[name].n)} of {m[name].n}"
            for name, text in (("flagged", "flagged"), ("target_hit", "right target"))
            if name in m
        ]
    tied = [f"ties {number('ties', m['ties'].mean)}"] if "ties" in m and m["ties"].mean >= TOLD_TIES else []
    if "rule_recall" not in m and "tpr_at_5" in m:
        return [f"found {number('tpr_at_5', m['tpr_at_5'].mean)} (5 % alarms)", *tied]
    wanted = {"rule_recall": "found", "rule_fpr": "false alarms"}
    return [*(f"{text} {number(name, m[name].mean)}" for name, text in wanted.items() if name in m), *tied]


def _beside_benign(cell: Cell) -> list[str]:
    m = cell.metrics
    if "flagged" in m:
        return [f"{round(m['flagged'].mean * m['flagged'].n)} of {m['flagged'].n}"]
    shown_too = {"ca": "CA after", "auroc": "AUROC"}
    return [f"{text} {number(name, m[name].mean)}" for name, text in shown_too.items() if name in m]


def title_of(method: Attack | Defense) -> str:
    """A method as the head of a row or column: its label, what it was made of, and the warning that it may carry."""
    about = f" [{method.about}]" if isinstance(method, Defense) and method.about else ""
    return f"{method.label}{about}" + (" (unreproduced)" if method.unreproduced else "")


def remarks_on(role: str, defenses: Iterable[Defense]) -> list[str]:
    """What the mean and the worst attack of each defense count, where that is not every attack and every run."""
    headline = term(ROLES[role].headline).title
    counted = number(ROLES[role].headline, worst_value(ROLES[role]))
    out = []
    for d in defenses:
        if d.failed:
            runs = "1 failed run counts" if d.failed == 1 else f"{d.failed} failed runs count"
            out.append(f"{d.label}: {runs} as {headline} {counted} in the mean and the worst attack.")
        if d.unasked:
            without = ", ".join(d.unasked)
            out.append(f"{d.label}: the mean and the worst attack are without {without}, where it has no value.")
    return out


def facts_of(rows: Iterable[Attack | Defense]) -> list[str]:
    """The names of what not all rows were made with alike."""
    return list(dict.fromkeys(name for row in rows for name in row.made_with))


def unreproduced_of(methods: Iterable[Attack | Defense]) -> list[tuple[str, str]]:
    """The methods of a table that stay far from their papers, each with why: (name, reason)."""
    return list({m.name: (m.name, m.unreproduced) for m in methods if m.unreproduced}.values())


def lower_first(title: str) -> str:
    """A title within a sentence; abbreviations stay as they are."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def notes_of(cells: Iterable[tuple[Cell, bool]]) -> dict[str, Note]:
    """The distinct reasons of cells (each with: is its row the one without an attack?), numbered in reading order."""
    out: dict[str, Note] = {}
    for cell, benign in cells:
        if reason := _reason(cell, benign):
            out.setdefault(reason, Note(len(out) + 1, reason))
    return out


def _reason(cell: Cell, benign: bool) -> str:
    role = ROLES[cell.role]
    name = role.benign if benign else role.headline
    if cell.reason or cell.state == "missing":
        return cell.reason
    return "" if name in cell.metrics else cell.undefined.get(name, "")


def axes(attacks: Sequence[Attack]) -> list[tuple[str, list[str]]]:
    """The stealth metrics that some attack has, by axis, the summary number first."""
    out = []
    for axis in ("input", "feature", "parameter"):
        names = {n: None for a in attacks for n in a.stealth.get(axis, {})}
        if names:
            out.append((axis, sorted(names, key=lambda n: n != "stealth")))
    return out


def costs_of(rows: Sequence[Attack] | Sequence[Defense]) -> list[str]:
    """The costs that some row has, in reading order."""
    order = ("seconds", "cpu_seconds", "peak_mb", "forward_passes", "clean_samples", "poisoned", "rows")
    return [name for name in order if any(name in row.cost for row in rows)]


def plain(name: str, value: Interval | None) -> str:
    """A mean with its spread, or a dash."""
    return "–" if value is None else shown(name, value)


def _signed(change: float) -> str:
    text = number("ca", change, unit=False)
    return text if text.startswith("−") or text.strip("0.") == "" else f"+{text}"
