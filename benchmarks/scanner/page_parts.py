"""How numbers are written in docs/scanner-results.md, and its tables on what is not in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Told = Mapping[str, Any]


def number(value: float | None, digits: int = 3) -> str:
    """A dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(v: Told | None) -> str:
    """An AUROC with its interval."""
    return "–" if v is None else f"{v['auroc']:.3f} [{v['low']:.2f}, {v['high']:.2f}]"


def share(v: Told | None) -> str:
    """A share with its interval."""
    return "–" if v is None else f"{v['share']:.2f} [{v['low']:.2f}, {v['high']:.2f}]"


def table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    """Of Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    return "\n".join(lines) + "\n"


def final_layer(told: Told | None) -> str:
    """`final-layer` beside what DFBScanner says of itself."""
    if not told:
        return ""
    if "reason" in told:
        return f"### The final layer alone\n\n`final-layer` does not apply here: {told['reason']}.\n"
    body = [
        (
            group.removeprefix("foreign:"),
            str(v["rule"]["n"]) if v["rule"] else "0",
            share(v["rule"]),
            share(v.get("with references")),
            interval(v.get("auroc")) if group != "fresh" else "–",
        )
        for group, v in told["groups"].items()
    ]
    head = ("Models", "n", "flagged by its own rule", "p <= .05 among the references", "AUROC against fresh")
    claim = told["claim"]
    return _FINAL.format(
        true=100 * claim["true"], false=100 * claim["false"], threshold=told["threshold"], ms=told["milliseconds"]
    ) + table(head, body)


_FINAL = """### The final layer alone

DFBScanner (arXiv:2605.18907) reports {true:.1f} % true and {false:.2f} % false alarms from the final layer's
parameters, without data or references. `final-layer` follows what its abstract says, no more of it was at hand: the
indicators and the threshold ({threshold:g}) are ours, it is marked unreproduced, and the rates below are of this
method, not of theirs. {ms:g} ms a model.

"""


def same_trigger(told: Told | None) -> str:
    """Before, after, and alone."""
    if not told:
        return ""
    rows = told["rows"]
    families = [f for f, v in next(iter(rows.values()))["families"].items() if v is not None]
    foreign = list(next(iter(rows.values()))["foreign"])
    body, alarms = [], []
    for name, r in rows.items():
        known = [r["families"][f] for f in families]
        worst = min((v for v in known if v), key=lambda v: v["auroc"], default=None)
        body.append((name, interval(r["all"]), interval(worst), *(number(v["auroc"], 2) if v else "–" for v in known)))
        alarms.append(
            (
                name,
                share(r["power"]["0.05"]),
                share(r["false_alarms"]["0.05"]),
                *(share(r["foreign"][g]) for g in foreign),
            )
        )
    gains = ", ".join(
        f"{name} {g['gain']:+.3f} [{g['low']:+.3f}, {g['high']:+.3f}]" for name, g in told["gain"].items() if g
    )
    return "\n".join(
        [
            _SAME,
            table(("AUROC", "all", "worst family", *families), body),
            table(("Share with p <= .05", "power", "false alarms", *(g.split(":")[1] for g in foreign)), alarms),
            f"Gain in AUROC by adding it (paired bootstrap): {gains}.\n",
        ]
    )


_SAME = """### Same-trigger comparison, not in the ledger

The cheapest trigger of every class, searched as the profile `fast` does, is written on rows that no search saw and
shown to all other models of the pool; the number is minus their mean log-probability of the class: high where nobody
else obeys.
"""


def ways(told: Told | None) -> str:
    """Other ways to combine views."""
    if not told:
        return ""
    body = []
    for said, rows in told.items():
        for name, r in rows.items():
            worst = min((v for v in r["families"].values() if v), key=lambda v: v["auroc"], default=None)
            g = r["gain"]
            change = "–" if g is None else f"{g['gain']:+.3f} [{g['low']:+.3f}, {g['high']:+.3f}]"
            body.append(
                (said, name, interval(r["all"]), interval(worst), change, share(r["power"]), share(r["false_alarms"]))
            )
    head = (
        "Views",
        "combined by",
        "AUROC, all",
        "worst family",
        "gain over the present way",
        "power .05",
        "false alarms .05",
    )
    return "### Other ways to combine the views of `full`\n\n" + table(head, body)
