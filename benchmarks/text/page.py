"""docs/text-results.md from receipts/text.json and receipts/text-encoder.json.

python -m benchmarks.receipts text text-encoder     runs the two presets
python -m benchmarks.text.page                      writes the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Cells = Mapping[tuple[str, str], Mapping[str, Any]]

#: He et al., EMNLP 2023, SST-2, BERT-base, a fifth of the rows poisoned: benign floor, and attack success with no
#: defense, with ONION and with Z-SEQ removal.
PUBLISHED = {
    "badnets(rate=0.2, target=1)": (9.0, 100.0, 100.0, 9.0),
    "add-sentence(rate=0.2, target=1)": (2.9, 100.0, 100.0, 3.4),
    "syntactic": (16.9, 95.9, 94.4, 29.7),
}
_HEAD = """# Text: results

Written by `python -m benchmarks.text.page` from [`receipts/text.json`](../receipts/text.json) and
[`receipts/text-encoder.json`](../receipts/text-encoder.json), which hold every cell with its settings, seeds and
cost; `python -m benchmarks.receipts text text-encoder` makes them. Means over seeds with 95 % t-intervals (of shares of
so few seeds they can leave 0 to 100). ASR is told beside its **floor**: what the same trigger does to a never-poisoned
model. Rows that already are of the target class never count. No setting of an attack or a defense was chosen on test
rows; thresholds are the methods' own, from clean rows.

The whole-model detectors are judged on populations of their own: `reviews` and `news` in
[scanner-results.md](scanner-results.md). What the methods do is in `bands show NAME`.
"""


def main() -> None:
    """Write the page from the receipts that are there."""
    parts = [_HEAD]
    small, encoder = (_receipt(name) for name in ("text", "text-encoder"))
    parts.append(_beside(small, encoder))
    for receipt, title in (
        (small, "TextCNN (64-wide words, one convolution), trained from nothing"),
        (encoder, "MiniLM (6 layers, 22.7 M weights), fine-tuned whole"),
    ):
        if receipt is not None:
            parts += [f"## {title}\n", *_tables(receipt)]
    Path("docs/text-results.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    print("written: docs/text-results.md")


def _receipt(name: str) -> Mapping[str, Any] | None:
    path = Path("receipts") / f"{name}.json"
    if not path.is_file():
        return None
    task: Mapping[str, Any] = json.loads(path.read_text("utf-8"))["tasks"][0]
    return task


def _cells(task: Mapping[str, Any], role: str) -> tuple[list[str], Cells]:
    cells = {(c["attack"], c["defense"]): c for c in task["cells"] if c["role"] == role}
    return sorted({defense for _, defense in cells}), cells


def _beside(small: Mapping[str, Any] | None, encoder: Mapping[str, Any] | None) -> str:
    """The published rows, and ours for the same recipe."""
    lines = [
        "## Beside the published rows\n",
        "SST-2, a fifth of the training rows poisoned with changed labels. Published: BERT-base (110 M weights), He et "
        "al., EMNLP 2023. Ours: the victims named; `z-score` is token features alone (their Z-TOKEN), ours with a "
        "threshold from the data. ASR in %.\n",
    ]
    rows = []
    for label, (floor, none, onion, z) in PUBLISHED.items():
        rows.append((label.split("(")[0], "BERT-base, published", _p(floor), _p(none), _p(onion), _p(z)))
        for task, victim in ((encoder, "MiniLM, ours"), (small, "TextCNN, ours")):
            if task is None:
                continue
            found = {a["label"]: a for a in task["attacks"]}.get(label)
            if found is None:
                continue
            inputs, trained = _cells(task, "input-detector")[1], _cells(task, "training")[1]
            by_z = next((c for (a, d), c in trained.items() if a == label and "z-score" in d), None)
            rows.append(
                (
                    "",
                    victim,
                    _percent(found["metrics"].get("control_asr")),
                    _percent(found["metrics"].get("asr")),
                    _percent(_metric(inputs.get((label, "onion")), "asr")),
                    _percent(_metric(by_z, "asr")),
                )
            )
    head = ("attack", "victim", "floor", "no defense", "ONION", "z-score, removed and trained again")
    return "\n".join([*lines, _table(head, rows)])


def _tables(task: Mapping[str, Any]) -> list[str]:
    names = [a["label"] for a in task["attacks"]]
    out = [
        "### Attacks\n",
        _table(("attack", "CA", "ASR", "floor", "lift", "took"), [_attack(a) for a in task["attacks"]]),
    ]
    kinds = (
        ("input-detector", "Inputs: AUROC of triggered against ordinary test rows", ("auroc",), "auroc"),
        ("input-detector", "Behind an input detector: CA / ASR, %", ("ca", "asr"), "pair"),
        ("model-detector", "Models: the method's own rule, share flagged", ("flagged",), "share"),
        (
            "data-filter",
            "Training rows: AUROC of the poison; recall / false alarms by the rule, %",
            ("auroc",),
            "filter",
        ),
        ("training", "Trained again without what a filter flags, or robustly: CA / ASR, %", ("ca", "asr"), "pair"),
        ("repair", "Repaired: CA / ASR, %", ("ca", "asr"), "pair"),
    )
    for role, title, needed, form in kinds:
        defenses, cells = _cells(task, role)
        if defenses:
            rows = [(a, *(_cell(cells.get((a, d)), needed, form) for d in defenses)) for a in names]
            out += [f"### {title}\n", _table(("attack", *defenses), rows)]
    costs = [
        (
            c["defense"],
            c["role"],
            _n(_mean(c["cost"].get("cpu_seconds")), 1),
            _n(_mean(c["cost"].get("forward_passes")), 0),
        )
        for c in task["cells"]
        if c["attack"] == "clean" and c["cost"]
    ]
    return [
        *out,
        "### Cost on a never-poisoned victim\n",
        _table(("defense", "role", "CPU seconds", "forward passes"), costs),
    ]


def _attack(a: Mapping[str, Any]) -> tuple[str, ...]:
    m = a["metrics"]
    shown = [_percent(m.get(k)) for k in ("ca", "asr", "control_asr", "lift")]
    return (a["label"], *shown, "–" if a["benign"] else f"{a['valid']} of {a['trained']}")


def _cell(c: Mapping[str, Any] | None, needed: Sequence[str], form: str) -> str:
    if c is None:
        return ""
    if c["state"] == "n/a" or not c["metrics"]:
        return "n/a"
    found = [_metric(c, k) for k in needed]
    if form == "auroc":
        return _interval(found[0])
    if form == "filter":
        rule = [_metric(c, "rule_recall"), _metric(c, "rule_fpr")]
        return f"{_interval(found[0])}; {_percent(rule[0])} / {_percent(rule[1])}"
    return " / ".join(_percent(f) for f in found)


def _metric(c: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    return None if c is None else c["metrics"].get(name)


def _mean(m: Mapping[str, Any] | None) -> float | None:
    return None if m is None else m["mean"]


def _p(value: float) -> str:
    return f"{value:.1f}"


def _n(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(m: Mapping[str, Any] | None) -> str:
    if m is None or m.get("mean") is None:
        return "–"
    half = "" if m.get("low") is None or m["n"] < 2 else f" ±{50 * (m['high'] - m['low']):.1f}"
    return f"{100 * m['mean']:.1f}{half}"


def _interval(m: Mapping[str, Any] | None) -> str:
    if m is None or m.get("mean") is None:
        return "–"
    half = "" if m.get("low") is None or m["n"] < 2 else f" ±{(m['high'] - m['low']) / 2:.2f}"
    return f"{m['mean']:.3f}{half}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


if __name__ == "__main__":
    main()
