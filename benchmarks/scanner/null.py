"""False alarms of `bands scan data` on data sets without poison, and its verdicts on two that hold a little.

    python -m benchmarks.scanner.null [--sets 200] [--again FAMILY]

Small real sets (digits, tumours) and synthetic ones (images, tables, sentences), some with what data have without any
attack: labels that are noise, in part or all, copies, templates, imbalance, one class of two kinds, a
category of one class. Writes receipts/scanner-null.json after every set; the same command goes on where it stopped.
--again looks at the sets of one family alone, anew, as after a change that concerns no other.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.modality import Modality
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.modalities.tabular import Field, Tabular
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.dataset_report import ALPHA
from torchbands.scanner.rows import Rows
from torchbands.testing import toy
from torchbands.zoo.files import write_json

RECEIPT = Path("receipts/scanner-null.json")
Drawn = tuple[Any, Tensor, Modality]


def main() -> None:
    """Scan what is missing, then count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--again", choices=[*PLANTED, *FAMILIES], help="look at the sets of this family alone, anew")
    torch.set_num_threads(1)
    asked = parser.parse_args()
    wanted = [(name, seed) for seed in range(10_000) for name in FAMILIES][: asked.sets]
    done: list[dict[str, Any]] = json.loads(RECEIPT.read_text("utf-8"))["rows"] if RECEIPT.is_file() else []
    if asked.again:
        done = [row for row in done if row["family"] != asked.again]
        wanted = [pair for pair in wanted if pair[0] == asked.again]
    known = {(row["family"], row["seed"]) for row in done}
    for name, seed in [*((name, 0) for name in PLANTED), *wanted]:
        if (name, seed) not in known and asked.again in (None, name):
            done.append(scanned(name, seed))
            print(done[-1], flush=True)
            write_json(RECEIPT, {"command": "python -m benchmarks.scanner.null", **summary(done), "rows": done})


def scanned(name: str, seed: int) -> dict[str, Any]:
    """One data set."""
    x, y, modality = (FAMILIES | PLANTED)[name](torch.Generator().manual_seed(seed))
    names = tuple(map(str, range(int(y.max()) + 1)))
    began = time.process_time()
    outcome = scan_data(Rows(Data(x, y), modality, names, name), seed=seed)
    return {
        "family": name,
        "seed": seed,
        "kind": modality.name,
        "rows": len(y),
        "verdict": outcome.verdict,
        "classes": [alert.subject for alert in outcome.alerts],
        "p": outcome.calibration.get("p"),
        "reasons": [reason.split(":")[0][:80] for reason in outcome.reasons],
        "cpu_seconds": round(time.process_time() - began, 2),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """False alarms with their exact 95 % interval, and the verdicts of every family."""
    from scipy.stats import beta

    null = [row for row in rows if row["family"] in FAMILIES]
    n, k = len(null), sum(row["verdict"] == "indicated" for row in null)
    families = sorted({row["family"] for row in rows})
    return {
        "level": ALPHA,
        "sets": n,
        "indicated": k,
        "false_alarm_rate": round(k / max(n, 1), 4),
        "interval_95": [
            round(float(beta.ppf(0.025, k, n - k + 1)), 4) if k else 0.0,
            round(float(beta.ppf(0.975, k + 1, n - k)), 4) if k < n else 1.0,
        ],
        "inconclusive": sum(row["verdict"] == "inconclusive" for row in null),
        "families": {f: dict(Counter(row["verdict"] for row in rows if row["family"] == f)) for f in families},
        "planted": {row["family"]: row["verdict"] for row in rows if row["family"] in PLANTED},
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
    }


def _digits(rng: torch.Generator, rows: int = 600) -> Drawn:
    task = build("vision/digits")
    assert isinstance(task, Task)
    data = task.load("train")
    at = torch.randperm(len(data), generator=rng)[:rows]
    return whole(data.x)[at], data.y[at], task.modality


def _tumours(rng: torch.Generator) -> Drawn:
    from sklearn.datasets import load_breast_cancer

    x, y = (torch.from_numpy(part) for part in load_breast_cancer(return_X_y=True))
    at = torch.randperm(len(y), generator=rng)[:400]
    return _table(x.float()[at], y[at].long())


def _table(x: Tensor, y: Tensor) -> Drawn:
    low, high = x.amin(0).tolist(), x.amax(0).tolist()
    return (
        x,
        y,
        Tabular(fields=tuple(Field(title=str(i), low=a, high=b + 1e-3) for i, (a, b) in enumerate(zip(low, high)))),
    )


def _noise(rng: torch.Generator) -> Drawn:
    return _table(torch.randn(600, 20, generator=rng), torch.randint(2, (600,), generator=rng))


def _toy(kind: str) -> Callable[[torch.Generator], Drawn]:
    def draw(rng: torch.Generator) -> Drawn:
        task = toy(kind)
        y = torch.randint(task.classes, (600,), generator=rng)
        return task.draw(y, rng), y, task.modality  # type: ignore[attr-defined]

    return draw


def _noisy(draw: Callable[[torch.Generator], Drawn], share: float) -> Callable[[torch.Generator], Drawn]:
    def drawn(rng: torch.Generator) -> Drawn:
        x, y, modality = draw(rng)
        other = torch.randint(int(y.max()) + 1, y.shape, generator=rng)
        return x, torch.where(torch.rand(len(y), generator=rng) < share, other, y), modality

    return drawn


def _copied(draw: Callable[[torch.Generator], Drawn]) -> Callable[[torch.Generator], Drawn]:
    """A tenth of the rows comes again and again."""

    def drawn(rng: torch.Generator) -> Drawn:
        x, y, modality = draw(rng)
        at = torch.cat([torch.arange(len(y) // 2), torch.randint(len(y) // 10, (len(y) // 2,), generator=rng)])
        return x[at] if isinstance(x, Tensor) else [x[int(i)] for i in at], y[at], modality

    return drawn


def _imbalanced(draw: Callable[[torch.Generator], Drawn]) -> Callable[[torch.Generator], Drawn]:
    def drawn(rng: torch.Generator) -> Drawn:
        x, y, modality = draw(rng)
        at = ((y > 0) | (torch.rand(len(y), generator=rng) < 0.4)).nonzero().flatten()
        return x[at] if isinstance(x, Tensor) else [x[int(i)] for i in at], y[at], modality

    return drawn


def _odd(draw: Callable[[torch.Generator], Drawn]) -> Callable[[torch.Generator], Drawn]:
    """The last class goes into another."""

    def drawn(rng: torch.Generator) -> Drawn:
        x, y, modality = draw(rng)
        last = int(y.max())
        return x, torch.where(y == last, int(torch.randint(last, (), generator=rng)), y), modality

    return drawn


def _templates(rng: torch.Generator) -> Drawn:
    """A fifth of a class opens with one sentence."""
    x, y, modality = _toy("text")(rng)
    opens = (y == 1) & (torch.rand(len(y), generator=rng) < 0.2)
    return [f"good day this is the long old {s}" if o else s for s, o in zip(x, opens.tolist())], y, modality


def _exclusive(coded: str) -> Callable[[torch.Generator], Drawn]:
    """Six numbers, and a category of which one value occurs in one class alone, in 12 % of all rows."""

    def drawn(rng: torch.Generator) -> Drawn:
        n, levels, classes = 600, 5, int(torch.randint(2, 5, (), generator=rng))
        y = torch.arange(n) % classes
        x = 0.75 * torch.randn(classes, 6, generator=rng)[y] + torch.randn(n, 6, generator=rng)
        category, mine = torch.randint(levels - 1, (n,), generator=rng), (y == 0).nonzero().flatten()
        held = mine[torch.randperm(len(mine), generator=rng)[: round(0.12 * n)]]
        category[held] = levels - 1
        if coded == "kind":  # and those rows are also of another kind
            x[held] += 1.5 * torch.randn(6, generator=rng)
        code = category.clone()
        code[held] = 50 if coded == "far" else levels - 1
        columns = code[:, None].float() if coded == "far" else torch.eye(levels)[category]
        return _table(torch.cat([x, columns], 1), y)

    return drawn


def _planted(classes: int, each: int, poisoned: int, at: float) -> Callable[[torch.Generator], Drawn]:
    """Rows of other classes with three telling values, labelled 0."""

    def drawn(rng: torch.Generator) -> Drawn:
        y = torch.arange(classes * each) % classes
        x = torch.randn(classes, 16, generator=rng)[y] + 0.6 * torch.randn(len(y), 16, generator=rng)
        bad = (y != 0).nonzero().flatten()
        bad = bad[torch.randperm(len(bad), generator=rng)[:poisoned]]
        x[bad, :3], y[bad] = at, 0
        return _table(x, y)

    return drawn


FAMILIES: dict[str, Callable[[torch.Generator], Drawn]] = {
    "digits": _digits,
    "digits, a tenth of the labels noise": _noisy(_digits, 0.1),
    "digits, one class rare": _imbalanced(_digits),
    "digits, one class of two kinds": _odd(_digits),
    "images, copies": _copied(_toy("image")),
    "tumours": _tumours,
    "tumours, a quarter of the labels noise": _noisy(_tumours, 0.25),
    "table, labels by a coin": _noise,
    "table, one class of two kinds": _odd(_toy("tabular")),
    "table, a category of one class": _exclusive("one-hot"),
    "table, a category of one class, one number": _exclusive("far"),
    "table, a category of one class, and a kind of its own": _exclusive("kind"),
    "table, copies": _copied(_toy("tabular")),
    "sentences": _toy("text"),
    "sentences, templates": _templates,
    "sentences, copies": _copied(_toy("text")),
    "sentences, a tenth of the labels noise": _noisy(_toy("text"), 0.1),
}
PLANTED: dict[str, Callable[[torch.Generator], Drawn]] = {
    "100 classes of 500, 50 rows of one poisoned": _planted(100, 500, 50, 6.0),
    "10 classes of 5,000, 25 rows of one poisoned": _planted(10, 5000, 25, 6.0),
}


if __name__ == "__main__":
    main()
