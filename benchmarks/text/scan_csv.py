"""`bands scan data` on a poisoned CSV of SST-2: recall of the poison at 5 % and 1 % false alarms, without being told.

    python -m benchmarks.text.scan_csv [--seeds 3]

Writes receipts/text-scan-data.json.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.fresh import versions
from torchbands.core.attack import Attack
from torchbands.core.data import whole
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.reading import read_rows
from torchbands.zoo.files import write_json

CASES = [("clean", 0.0), *((name, rate) for name in ("badnets", "add-sentence") for rate in (0.2, 0.05, 0.02, 0.01))]
CASES += [("syntactic", 0.2)]


def main() -> None:
    """Poison, write the file, scan it, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    torch.set_num_threads(1)
    rows = [case(name, rate, seed) for name, rate in CASES for seed in range(parser.parse_args().seeds)]
    used = sorted({name for row in rows for name in row.pop("filters")})
    attacks = [build(name, "attack") for name in dict(CASES)]
    told = {"methods": versions(build("text/sst2"), *attacks, *(build(name, "data-filter") for name in used))}
    receipt = {"command": "python -m benchmarks.text.scan_csv", **told, "rows": rows}
    write_json(Path("receipts/text-scan-data.json"), receipt)


def case(name: str, rate: float, seed: int) -> dict[str, Any]:
    """One file."""
    task = build("text/sst2")
    assert isinstance(task, Task)
    attack = build({"role": "attack", "name": name, **({} if name == "clean" else {"rate": rate, "target": 1})})
    assert isinstance(attack, Attack)
    data = attack.poison(task.load("train", seed), task, seed)
    poison = torch.zeros(len(data), dtype=torch.bool) if data.poisoned is None else data.poisoned
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(("text", "label"))
            out.writerows((text, task.class_names[int(y)]) for text, y in zip(whole(data.x), data.y, strict=True))
        outcome = scan_data(read_rows(str(path)), folder=Path(folder) / "out", seed=seed)
        with (Path(folder) / "out" / "scores.csv").open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
    scores, flagged = torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.bool)
    for row in found:
        scores[int(row["id"])], flagged[int(row["id"])] = float(row["combined"]), row["flagged"] == "1"
    told = {
        "attack": name,
        "rate": rate,
        "seed": seed,
        "poisoned": int(poison.sum()),
        "verdict": outcome.verdict,
        "recall_at_5": recall(scores, poison, 0.05),
        "recall_at_1": recall(scores, poison, 0.01),
        "flagged": int(flagged.sum()),
        "flagged_poison": int((flagged & poison).sum()),
        "cpu_seconds": round(float(outcome.cost.get("cpu_seconds", 0.0)), 2),
        "filters": outcome.methods,
    }
    print(told, flush=True)
    return told


def recall(scores: Tensor, poison: Tensor, share: float) -> float | None:
    """Share of the poison that scores above all but `share` of the ordinary rows."""
    if not poison.any():
        return None
    ordinary = scores[~poison].sort(descending=True).values
    return round(float((scores[poison] > ordinary[int(share * len(ordinary))]).float().mean()), 4)


if __name__ == "__main__":
    main()
