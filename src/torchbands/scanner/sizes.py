"""Trigger size per class, of the suspect and of every reference, for the figure in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: Views that tell a size, the first of those that looked is shown; their numbers are -log(size).
VIEWS = {
    "target-inversion": "size of the smallest patch that turns samples of every class into it",
    "pairwise-inversion": "size of the smallest patch that turns samples of some class into it",
    "universal-perturbation": "length of the smallest shift that turns samples of every class into it",
}
#: Classes that are shown, and references of each.
CLASSES, DOTS = 12, 60


def sizes_of(pools: Mapping[str, Tensor], names: Sequence[str], target: int | None) -> dict[str, Any]:
    """JSON-ready: `view`, `about`, `classes` (names), `suspect` (a size or None for each) and `references` (sizes of
    each). With many classes those are shown whose trigger is smallest beside the references', and `target`. Empty where
    no view told sizes.

    Args:
        pools: view -> (n + 1, K) or (n + 1, K, K) numbers, the suspect's last.
    """
    view = next((v for v in VIEWS if v in pools and pools[v].ndim > 1), None)
    if view is None:
        return {}
    values = _by_target(pools[view])
    if values.shape[1] != len(names) or not bool(values[-1].isfinite().any()):
        return {}
    usual = values[:-1].nanmedian(0).values
    order = (values[-1] - usual).nan_to_num(-torch.inf).argsort(descending=True, stable=True).tolist()
    shown = order[:CLASSES]
    if target is not None and target not in shown:
        shown[-1] = target
    return {
        "view": view,
        "about": VIEWS[view],
        "classes": [names[c] for c in shown],
        "left_out": len(order) - len(shown),
        "suspect": [_size(float(values[-1, c])) for c in shown],
        "references": [_dots(values[:-1, c]) for c in shown],
    }


def _by_target(pool: Tensor) -> Tensor:
    """(m, K): of pairs, the source that is led to a target most cheaply."""
    values = torch.where(pool.isfinite(), pool, torch.nan).double()
    if values.ndim == 2:
        return values
    best = values.nan_to_num(-torch.inf).amax(1)
    return torch.where(best.isfinite(), best, torch.nan)


def _size(value: float) -> float | None:
    return float(f"{math.exp(-value):.4g}") if math.isfinite(value) else None


def _dots(values: Tensor) -> list[float]:
    """Sizes of the references, in order; of many, evenly spread ones, the smallest and the largest among them."""
    known = values[values.isfinite()].sort(descending=True).values
    if len(known) > DOTS:
        known = known[torch.linspace(0, len(known) - 1, DOTS).round().long()]
    return [size for v in known.tolist() if (size := _size(v)) is not None]
