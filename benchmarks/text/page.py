"""docs/text-results.md from receipts/text.json and receipts/text-encoder.json.

python -m benchmarks.receipts text text-encoder     runs the two presets
python -m benchmarks.text.page                      writes the page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fresh import refuse_stale
from torchbands.report.cells import unreproduced

#: What the page is written from, and what makes each.
RECEIPTS = {
    "text": "benchmarks.receipts text",
    "text-encoder": "benchmarks.receipts text-encoder",
    "text-scan-data": "benchmarks.text.scan_csv",
    "text-folder": "benchmarks.text.folder",
    "encoders": "benchmarks.text.encoders",
}
Cells = Mapping[tuple[str, str], Mapping[str, Any]]

#: He et al., EMNLP 2023, SST-2, BERT-base, a fifth of the rows poisoned: benign floor, and attack success with no
#: defense, with ONION and with Z-SEQ removal.
PUBLISHED = {
    "badnets(rate=0.2, target=1)": (9.0, 100.0, 100.0, 9.0),
    "add-sentence(rate=0.2, target=1)": (2.9, 100.0, 100.0, 3.4),
    "syntactic": (16.9, 95.9, 94.4, 29.7),
}
_HEAD = """# Text: results

Written by `python -m benchmarks.text.page` from [`receipts/text.json`](../receipts/text.json), which holds every cell
with its settings, seeds and cost; `python -m benchmarks.receipts text` makes it. (The preset `text-encoder` does the
first table with a fine-tuned MiniLM; its row is here once it was run to the end.) Means over seeds with 95 %
t-intervals, which of shares of so few seeds can leave 0 to 100; a row of one seed has none. ASR is told beside its
**floor**: what the same trigger does to a never-poisoned model. Rows that already are of the target class never count.
Settings were chosen on training and dev rows, with one exception: sau's learning rate and radius were picked with test
numbers of digits and SST-2 in sight, so its column is no held-out evidence. Thresholds are the methods' own, from clean
rows.

The whole-model detectors are judged on a population of their own, `reviews` in
[scanner-results.md](scanner-results.md). What the methods do is in `bands show NAME`.
"""


def main() -> None:
    """Write the page from the receipts that are there, if all are of the versions that are installed."""
    refuse_stale(
        (str(path), json.loads(path.read_text("utf-8")), f"python -m {command}")
        for name, command in RECEIPTS.items()
        if (path := Path("receipts") / f"{name}.json").is_file()
    )
    parts = [_HEAD]
    small, encoder = (_receipt(name) for name in ("text", "text-encoder"))
    parts.append(_beside(small, encoder))
    parts += [_files(), _folders(), _encoders()]
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


def _files() -> str:
    """`bands scan data` on poisoned CSV files."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in json.loads(Path("receipts/text-scan-data.json").read_text("utf-8"))["rows"]:
        found.setdefault((row["attack"], row["rate"]), []).append(row)
    rows = []
    for (attack, rate), each in found.items():
        accused = sum(row["verdict"] == "indicated" for row in each)
        recalls = [
            " ".join("–" if r[k] is None else f"{r[k]:.2f}" for r in each) for k in ("recall_at_5", "recall_at_1")
        ]
        rows.append((attack, f"{rate:.0%}", f"{accused} of {len(each)}", *recalls))
    return "\n".join(
        [
            "## Poisoned files\n",
            "`bands scan data reviews.csv` on SST-2 with poison, told nothing (`python -m benchmarks.text.scan_csv`). "
            "Recall of the poison among all rows ranked by suspicion, one number a seed. Accused: the scan ends with "
            "exit code 1.\n",
            _table(("attack", "rate", "accused", "recall at 5 % false alarms", "at 1 %"), rows),
        ]
    )


def _folders() -> str:
    """`bands scan model` on fine-tuned encoder folders."""
    told = json.loads(Path("receipts/text-folder.json").read_text("utf-8"))
    rows = []
    for name in ("backdoored", "never-poisoned"):
        said = told[name]
        words = next((a["facts"]["words"] for a in said["alerts"] if "words" in a["facts"]), "–")
        trigger, recipe = said["trigger"]["p"], said["recipe"]["p"]
        rows.append(
            (name, str(said["exit code"]), f"{trigger:.2f}", f"{recipe:.2f}", words, _n(said["cost"]["cpu_seconds"], 0))
        )
    return "\n".join(
        [
            "## Fine-tuned MiniLM folders\n",
            "`bands scan model` with 19 references that begin from the same public encoder, profile fast "
            "(`python -m benchmarks.text.folder`; SST-2, 1,500 rows; `cf` in 5 % of them). Two models are an "
            "example, no rate.\n",
            _table(("folder", "exit code", "p_trigger", "p_recipe", "words", "CPU seconds"), rows),
        ]
    )


def _encoders() -> str:
    """Heads trained on backdoored encoders, and decree."""
    told = json.loads(Path("receipts/encoders.json").read_text("utf-8"))
    rows = [
        (
            h["attack"],
            h["set"],
            str(h["seed"]),
            *(f"{100 * h[k]:.1f}" for k in ("clean_ca", "ca", "asr", "control_asr")),
        )
        for h in told["heads"]
    ]
    return "\n".join(
        [
            "## Backdoored encoders\n",
            "MiniLM poisoned with SST-2 texts; heads trained later on 400 clean rows of two sets "
            "(`python -m benchmarks.text.encoders`; the heads are weak, so read ASR beside its control). What decree "
            "says of these encoders and of clean ones is in [`receipts/encoders.json`](../receipts/encoders.json).\n",
            _table(("attack", "heads on", "seed", "CA, public encoder", "CA", "ASR", "control"), rows),
        ]
    )


def _cells(task: Mapping[str, Any], role: str) -> tuple[list[str], Cells]:
    cells = {(c["attack"], c["defense"]): c for c in task["cells"] if c["role"] == role}
    return sorted({defense for _, defense in cells}), cells


def _beside(small: Mapping[str, Any] | None, encoder: Mapping[str, Any] | None) -> str:
    """The published rows, and ours for the same recipe."""
    lines = [
        "## Beside the published rows\n",
        "SST-2, a fifth of the training rows poisoned with changed labels. Published: BERT-base (110 M weights), He et "
        "al., EMNLP 2023 (Z-SEQ: words, then syntax). Ours: the victims named, ONION with a trigram of the clean rows, "
        "`z-score` by words alone. ASR in %.\n",
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
            out += [f"### {title}\n", _table(("attack", *(_title(task, role, d) for d in defenses)), rows)]
    costs = [
        (
            _title(task, c["role"], c["defense"]),
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


def _title(task: Mapping[str, Any], role: str, label: str) -> str:
    """A column's head: the label, what the method was made of, and whether it is far from its paper."""
    found = next((d for d in task["defenses"] if (d["role"], d["label"]) == (role, label)), {"name": label})
    about = f" [{found['about']}]" if found.get("about") else ""
    return f"{label}{about}" + (" (unreproduced)" if unreproduced(role, found["name"]) else "")


def _attack(a: Mapping[str, Any]) -> tuple[str, ...]:
    m = a["metrics"]
    shown = [_percent(m.get(k)) for k in ("ca", "asr", "control_asr", "lift")]
    mark = " (unreproduced)" if unreproduced("attack", a["name"]) else ""
    return (f"{a['label']}{mark}", *shown, "–" if a["benign"] else f"{a['valid']} of {a['trained']}")


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
