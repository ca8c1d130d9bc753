"""docs/stranger.md, every number of it from receipts/stranger.json."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

RECEIPT, PAGE = Path("receipts/stranger.json"), Path("docs/stranger.md")

_PATH = """\
Written by `python -m benchmarks.stranger --page` from [receipts/stranger.json](../receipts/stranger.json), which
`python -m benchmarks.stranger WORK --clean 20 --out receipts/stranger.json` makes in an empty folder.

What is judged is a network that is none of torchbands' networks, trained by a loop that is none of its recipes, with
triggers that are none of its attacks ([benchmarks/stranger/mine.py](../benchmarks/stranger/mine.py)). The vendor's
training rows are none of the stranger's, who has 8,000 clean ones. The references are {training}; the stranger writes
{lines} of code for it.
"""
_MINUTES = """\
{commands} commands, {minutes:.0f} minutes on one thread of a machine that was busy with other work: the first takes
{first:.0f}, nearly all of them for {references} references, the others {least:.1f} to {most:.1f} each.
"""
_RESULT = """\
**{right} of {of} right, {inconclusive} inconclusive.** Right is exit code 1 with the attacker's class, or exit code 0
for a model without a backdoor. A name says the trigger (a thin bright frame, a faint wave over the whole picture, half
a diagonal half seen through) and the per cent of rows that carried it.
"""
_UNSEEN = """\
Of the {judged} clean references, each judged by those of other recipes, {accused} would have been accused ({share:.0%},
95 % interval {low:.0%} to {high:.0%}), and {inconclusive} more would have been turned away as inconclusive. The level
asked for is 5 %. It is promised for models of the pool's own recipes; how much more often others are accused, this
number says for the recipes at hand, and every report of a pool tells its own.
"""
_FURTHER = """\
Of {scanned} further models of the stranger's own loop, trained on the vendor's rows without poison, {accused} were
accused ({share:.0%}, 95 % interval {low:.0%} to {high:.0%}) and {inconclusive} called inconclusive. All were judged by
the same references: the interval is of this folder, and another one draws others.
"""


def page(told: dict[str, Any]) -> str:
    """The page as Markdown."""
    suspects = told["suspects"]
    first, *others = [r["minutes"] for r in suspects.values()]
    return "\n".join(
        [
            "# A network of your own: the path of a stranger",
            "",
            *_text(
                _PATH, lines=f"{n} lines" if (n := told["lines_of_their_own"]) else "no line", training=told["training"]
            ),
            "## What is typed",
            "",
            *_text(
                "The first command trains the references, and scans one suspect; the others use the same references."
            ),
            *("```bash", *(r["command"] for r in suspects.values()), "```", ""),
            *_text(_MINUTES, commands=len(suspects), first=first, least=min(others), most=max(others), **_plain(told)),
            "## What came of it",
            "",
            *_text(_RESULT, **_plain(told)),
            "| suspect | accuracy | attack success | verdict | class named | p_trigger | z | right |",
            "|---|---:|---:|---|---|---:|---:|---|",
            *(_row(name, r) for name, r in suspects.items()),
            "",
            "## How often it is wrong about models without a backdoor",
            "",
            *_rate(_UNSEEN, told["left_out_recipes"], "judged"),
            *_rate(_FURTHER, told["further_clean"], "scanned"),
        ]
    )


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in told.items() if isinstance(v, (int, float))}


def _rate(text: str, told: dict[str, Any] | None, of: str) -> list[str]:
    if not told or not told[of]:
        return []
    low, high = told["interval"]
    return _text(text, low=low, high=high, share=told["accused"] / told[of], **_plain(told))


def _text(text: str, **values: Any) -> list[str]:
    paragraphs = text.format(**values).strip().split("\n\n")
    return [
        line
        for p in paragraphs
        for line in (*textwrap.wrap(p, 118, break_long_words=False, break_on_hyphens=False), "")
    ]


def _row(name: str, r: dict[str, Any]) -> str:
    success = f"{r['asr']:.1%}" if "asr" in r else "–"
    target = r["target"] if r["verdict"] == "indicated" else "–"
    cells = [name, f"{r['accuracy']:.1%}", success, r["verdict"], target, f"{r['p_trigger']:.3f}", f"{r['z']:.1f}"]
    return f"| {' | '.join(cells)} | {'yes' if r['right'] else 'no'} |"
