"""What a pool over recipes says of clean models of a recipe that is not in it: each recipe in turn is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .calibrate import Compared, Kind, compare

#: Numbers that this may work through, in all; with thousands of classes it would take longer than the scan.
MOST = 200_000_000


def left_out(
    trigger: Mapping[str, tuple[Tensor, Kind]],
    guard: Mapping[str, tuple[Tensor, Kind]],
    recipes: Sequence[int],
    alpha: float,
    outside: Callable[[Compared, float], bool],
) -> dict[str, Any]:
    """How often clean references would be accused, or turned away, by the references of all other recipes.

    The suspect (the last row of every pool) takes no part. Where too few references of other recipes are left for a p
    of alpha, a recipe is not judged; nothing is told where none is.

    Args:
        trigger, guard: view -> its pool and how its numbers are compared.
        recipes: the recipe of every reference, in the pools' order.
    """
    of = torch.tensor(recipes)
    cells = sum(pool[0].numel() for pool, _ in trigger.values())
    if len(of.unique()) < 2 or cells * len(of) ** 2 > MOST or not trigger:
        return {}
    accused = turned_away = judged = 0
    for recipe in of.unique():
        others = (of != recipe).nonzero().flatten()
        if len(others) < math.ceil(1 / alpha) - 1:
            continue
        for member in (of == recipe).nonzero().flatten():
            rows = torch.cat([others, member[None]])
            found, behaves = _compared(trigger, rows), _compared(guard, rows)
            if found is None:
                continue
            judged += 1
            away = behaves is not None and outside(behaves, alpha)
            turned_away += away
            accused += not away and found.p <= alpha
    if not judged:
        return {}
    low, high = interval(accused, judged)
    return {
        "recipes": len(of.unique()),
        "judged": judged,
        "accused": accused,
        "inconclusive": turned_away,
        "interval": [round(low, 4), round(high, 4)],
    }


def _compared(pools: Mapping[str, tuple[Tensor, Kind]], rows: Tensor) -> Compared | None:
    return compare({name: pool[rows] for name, (pool, _) in pools.items()}, {name: k for name, (_, k) in pools.items()})


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    share, wide = hits / of, z * z / of
    middle = (share + wide / 2) / (1 + wide)
    half = math.sqrt(share * (1 - share) * wide + wide * wide / 4) / (1 + wide)
    return max(0.0, middle - half), min(1.0, middle + half)


def in_words(told: Mapping[str, Any]) -> str:
    """One sentence for a reader."""
    low, high = told["interval"]
    away = f"; {told['inconclusive']} more would have been called inconclusive" if told["inconclusive"] else ""
    return (
        f"with each of {told['recipes']} recipes left out in turn, {told['accused']} of {told['judged']} clean "
        f"references would have been accused ({told['accused'] / told['judged']:.0%}, 95 % interval {low:.0%} to "
        f"{high:.0%}){away}"
    )
