"""A population of models judged at once: the AUROC of every model detector, clean models against each attack's."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from torchbands.core.metric import Undefined
from torchbands.measures.effectiveness import auroc, auroc_interval

from .store import Store

ALL = "all attacks"


def population(store: str | Path) -> list[dict[str, Any]]:
    """One row per (task, model detector, attack), and one over all attacks.

    Invalid victims are left out. `flagged_clean` and `flagged` are shares by the published rule; None where it gives
    no verdict. `target_hit` is how often the right class was named.
    """
    scores: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in Store(store).records("records"):
        if record["role"] == "model-detector" and record["status"] == "done" and record["valid"] is not False:
            scores[record["task"], record["defense_label"]][record["attack_label"]].append(record["metrics"])
    rows = []
    for (task, detector), by_attack in sorted(scores.items()):
        clean = by_attack.get("clean", [])
        attacked = {name: found for name, found in sorted(by_attack.items()) if name != "clean"}
        everything = [m for found in attacked.values() for m in found]
        for name, found in {**attacked, ALL: everything}.items():
            if clean and found:
                rows.append({"task": task, "detector": detector, "attack": name, **_row(found, clean)})
    return rows


def _row(found: list[dict[str, Any]], clean: list[dict[str, Any]]) -> dict[str, Any]:
    value = auroc(_column(found, "score"), _column(clean, "score"))
    assert not isinstance(value, Undefined)
    low, high = auroc_interval(value, len(found), len(clean))
    return {
        "auroc": round(value, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "backdoored": len(found),
        "clean": len(clean),
        "flagged": _share(found, "flagged"),
        "flagged_clean": _share(clean, "flagged"),
        "target_hit": _share(found, "target_hit"),
    }


def _column(metrics: list[dict[str, Any]], name: str) -> torch.Tensor:
    return torch.tensor([m[name] for m in metrics], dtype=torch.float64)


def _share(metrics: list[dict[str, Any]], name: str) -> float | None:
    known = [m[name] for m in metrics if m.get(name) is not None]
    return round(sum(known) / len(known), 4) if known else None
