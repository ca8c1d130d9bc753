"""The page of `benchmarks.public_repairs`: its receipt beside published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path("docs/public-repairs.md")
#: Accuracy and success on this very network, success counted on all triggered rows: the authors' notebook, one round.
AUTHORS = {"i-bau": (0.8308, 0.0936)}
#: Median success and change of accuracy in points, BackdoorBench's public board: 465 victims of 4 data sets, 4 networks
#: and 10 attacks whose success was at least 50 % before.
BOARD = {
    "fine-tune": (0.78, -0.2),
    "fine-pruning": (0.53, -1.0),
    "unlearn": (0.46, -0.8),
    "anp": (0.51, -3.0),
    "i-bau": (0.15, -3.8),
    "channel-lipschitz": (0.89, 0.0),
}
_HEAD = """# Repairs on a public backdoored network

One network that others made and others backdoored: CIFAR-10, BadNets (a white square of 4x4), every class to class 8,
published by the authors of I-BAU. The defender has the first 5,000 test images, the other 5,000 judge; no setting was
chosen on it but that i-bau makes one round, as in the authors' notebook. *Success* leaves rows of class 8 out; *all
rows* counts them and uses the defender's own images with the trigger, as the authors do, so about .1 is the floor.
*Board* is the median success and change of accuracy on BackdoorBench's board: another kind of number, over many
attacks and networks. CPU seconds are those of one thread.

Written by `python -m benchmarks.public_repairs NETWORK.pth` from
[`receipts/public-repairs.json`](../receipts/public-repairs.json).
"""


def write_page(receipt: dict[str, Any]) -> None:
    """docs/public-repairs.md."""
    rows = [
        "| repair | accuracy | success | all rows | CPU s | authors | board |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    if "before" in receipt:
        rows.append(_line("none", receipt["before"]))
    rows += [_line(name, row) for name, row in sorted(receipt["repairs"].items())]
    looks = ["| detector | flagged | class | score | CPU s |", "|---|---|---:|---:|---:|"]
    looks += [_look(name, row) for name, row in sorted(receipt["detectors"].items())]
    parts = [_HEAD, "## Repairs\n", "\n".join(rows), ""]
    if receipt["detectors"]:
        parts += [
            "## Detectors\n",
            "By their own published rule, where there is one, on 500 clean images. The right class is 8.\n",
            "\n".join(looks),
            "",
        ]
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _unable(row: dict[str, Any]) -> str | None:
    for word in ("declined", "failed"):
        if word in row:
            return f"{word}: {row[word]}".replace("|", "/")
    return None


def _line(name: str, row: dict[str, Any]) -> str:
    if (why := _unable(row)) is not None:
        return f"| {name} | {why} | | | | | |"
    authors = "{:.3f} / {:.3f}".format(*AUTHORS[name]) if name in AUTHORS else ""
    board = "{:.2f}, {:+.1f}".format(*BOARD[name]) if name in BOARD else ""
    seconds = f"{row['cpu_s']:.0f}" if "cpu_s" in row else ""
    return (
        f"| {name} | {row['ca']:.3f} | {row['asr']:.3f} | {row['asr_all_rows']:.3f} | {seconds} | {authors} | {board} |"
    )


def _look(name: str, row: dict[str, Any]) -> str:
    if (why := _unable(row)) is not None:
        return f"| {name} | {why} | | | |"
    flagged = {True: "yes", False: "no", None: "no rule"}[row["flagged"]]
    shown = "" if row["class"] is None else row["class"]
    return f"| {name} | {flagged} | {shown} | {row['score']:.2f} | {row['cpu_s']:.0f} |"
