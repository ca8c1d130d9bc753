"""The outcome as a piece of HTML below a notebook's cell: what the page says first, in the notebook's own style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from torchbands.scanner.outcome import Outcome

from .formatting import ANSWERS, answers, number, p_of, pair, plain, title
from .html import picture_of

#: Pictures, and views of the ledger, that are shown.
PICTURES, LINES = 8, 12
_COLOURS = {"indicated": "#b3261e", "unusual": "#8a5a00", "none": "#2e6b34", "inconclusive": "#5f6368"}


def render(outcome: Outcome) -> str:
    """A fragment without script, link or outside file; every string is made plain and escaped."""
    head = f"border-left:4px solid {_COLOURS[outcome.verdict]};padding-left:.8em"
    sentence = escape(plain(outcome.sentence(), 2000))
    out = [Markup("<div style='{}'><strong>{}</strong><br>{}</div>").format(head, title(outcome), sentence)]
    found = [(a.level, plain(a.rule, 40), plain(a.subject, 120), plain(a.message)) for a in outcome.alerts]
    out += _table(("level", "rule", "about", "finding"), found)
    out += _table(("answer", "p"), [(ANSWERS[name][0], p_of(answer)) for name, answer in answers(outcome)])
    lines = sorted(outcome.ledger, key=lambda line: -(line.z if line.z is not None else -1e9))
    out += _table(
        ("view", "answers", "score", "z", "p", "suspected", "why not"),
        [
            (
                plain(l.view, 60),
                l.answer,
                number(l.score),
                number(l.z, 2),
                number(l.p, 2),
                pair(l),
                plain(l.reason, 120),
            )
            for l in lines[:LINES]
        ],
    )
    if len(lines) > LINES:
        out.append(Markup("<p>and {} more in <code>outcome.ledger</code></p>").format(len(lines) - LINES))
    shown = [(picture_of(picture), plain(picture.caption)) for picture in outcome.pictures[:PICTURES]]
    figure = Markup("<figure style='display:inline-block;margin:.4em'>{}<figcaption>{}</figcaption></figure>")
    out += [figure.format(made, caption) for made, caption in shown]
    out += _items("What to do next", outcome.next_steps)
    out += _items("Not covered", outcome.not_covered)
    return str(Markup("<div>{}</div>").format(Markup("\n").join(out)))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Markup]:
    body = [Markup("<tr>{}</tr>").format(_cells("td", row)) for row in rows]
    made = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>")
    return [made.format(_cells("th", columns), Markup("").join(body))] if body else []


def _cells(tag: str, row: Iterable[str]) -> Markup:
    start, end = Markup(f"<{tag} style='text-align:left'>"), Markup(f"</{tag}>")
    return Markup("").join(start + escape(cell) + end for cell in row)


def _items(name: str, items: Iterable[str]) -> list[Markup]:
    made = [Markup("<li>{}</li>").format(plain(item)) for item in items]
    return [Markup("<details><summary>{}</summary><ul>{}</ul></details>").format(name, Markup("").join(made))] * bool(
        made
    )
