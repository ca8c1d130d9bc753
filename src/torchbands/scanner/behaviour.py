"""How a suspect and its references behave on clean rows, in words: which numbers differ, and what to try then."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Range = tuple[float, float, float]


def behaviour(pool: Tensor) -> dict[str, Range]:
    """(n + 1, 5) numbers of clean-behaviour, the suspect's last -> name: (suspect, lowest, highest reference)."""
    values = pool.double()
    columns = {
        "accuracy": values[:, 0].sigmoid(),
        "confidence": values[:, 1],
        "entropy": values[:, 2],
        "confidence minus accuracy": values[:, 3],
        "spread of logits": values[:, 4].exp(),
    }
    out = {}
    for name, column in columns.items():
        known = column[:-1][column[:-1].isfinite()]
        if len(known) and bool(column[-1].isfinite()):
            out[name] = (float(column[-1]), float(known.min()), float(known.max()))
    return out


def differences(told: Mapping[str, Range]) -> str:
    """'confidence 0.84 (references 0.86 to 0.89), ...': what lies outside the references; all where nothing does."""
    return all_of({name: r for name, r in told.items() if not r[1] <= r[0] <= r[2]} or told)


def all_of(told: Mapping[str, Range]) -> str:
    """Every number, the suspect's and the references'."""
    return ", ".join(f"{name} {a:.3g} (references {low:.3g} to {high:.3g})" for name, (a, low, high) in told.items())


def advice(told: Mapping[str, Range]) -> str:
    """What to train other references with."""
    here, low, high = told.get("confidence", (0.0, 0.0, 0.0))
    if here > high:
        way = "train longer (--epochs), without label smoothing or augmentation, or with less weight decay"
    elif here < low:
        way = "train shorter (--epochs), or with --label-smoothing, --augment or more weight decay"
    else:
        way = "train on as many rows as the suspect saw (--rows), with its optimizer and rate (--optimizer, --lr)"
    return (
        f"add references that are more like it: {way}, or best by its own training code (--train CODE:FUNCTION); "
        "--add keeps those that are there: bands refs train --add"
    )
