"""What `scan data` sees in raw values: triggers of users' own on few rows, and data without poison.

    python -m benchmarks.scanner.shared

Writes receipts/shared-values.json. Takes a minute: no model is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data, take
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.scanner.rows import Rows
from torchbands.scanner.shared_values import groups_of
from torchbands.zoo.files import write_json

from .null import FAMILIES

RECEIPT, ROWS, SEEDS = Path("receipts/shared-values.json"), 4000, 12


def _frame(x: Tensor) -> Tensor:
    x = x.clone()
    for edge in (x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]):
        edge.fill_(0.75)
    return x


def _dot(x: Tensor) -> Tensor:
    x = x.clone()
    x[..., 3:5, 22:24] = 1.0
    return x


def _tint(x: Tensor) -> Tensor:
    return 0.85 * x + 0.1


def _wave(x: Tensor) -> Tensor:
    return (x + 0.16 * torch.sin(torch.arange(28) * 2 * math.pi / 7)).clamp(0, 1)


#: Trigger -> how it is written, and the share of all rows.
PLANTED: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "frame": (_frame, 0.005),
    "dot": (_dot, 0.005),
    "tint": (_tint, 0.01),
    "wave": (_wave, 0.01),
}


def main() -> None:
    """Count rows that are shown, and planted ones among them."""
    torch.set_num_threads(1)
    planted = [_planted(name, write, rate) for name, (write, rate) in PLANTED.items()]
    null: dict[str, int] = {}
    for name, draw in FAMILIES.items():
        null[name] = sum(bool(groups_of(_drawn(draw, name, seed))) for seed in range(SEEDS))
        print(name, null[name], flush=True)
    told = {"command": "python -m benchmarks.scanner.shared", "rows": ROWS, "planted": planted}
    write_json(RECEIPT, told | {"null": {"drawings": SEEDS, "with_a_group": null}})


def _planted(name: str, write: Callable[[Tensor], Tensor], rate: float) -> dict[str, Any]:
    task = build({"name": "vision/fashion-mnist"}, "task")
    assert isinstance(task, Task)
    data, rng = task.load("train", 0), torch.Generator().manual_seed(0)
    at = torch.randperm(len(data), generator=rng)[:ROWS]
    x, y, target = take(data.x, at).clone(), data.y[at].clone(), int(torch.randint(10, (), generator=rng))
    others = (y != target).nonzero().flatten()
    bad = others[torch.randperm(len(others), generator=rng)[: round(rate * ROWS)]]
    x[bad], y[bad] = write(x[bad]), target
    found = groups_of(Rows(Data(x, y), task.modality, tuple(task.class_names), name))
    shown = {i for group in found for i in group.rows}
    told = {"trigger": name, "planted": len(bad), "shown": len(shown), "right": len(shown & set(bad.tolist()))}
    print(told, flush=True)
    return told | {"places": [len(group.places) for group in found]}


def _drawn(draw: Callable[[torch.Generator], Any], name: str, seed: int) -> Rows:
    x, y, modality = draw(torch.Generator().manual_seed(seed))
    return Rows(Data(x, y), modality, tuple(map(str, range(int(y.max()) + 1))), name)


if __name__ == "__main__":
    main()
