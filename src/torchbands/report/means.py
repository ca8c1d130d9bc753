"""Means over seeds, with intervals that fit what is averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchbands.core.metric import Interval, Undefined, mean_interval
from torchbands.measures.effectiveness import auroc, auroc_interval

from .glossary import term

#: Metrics that are 0 or 1 per model: a share of models, with Wilson's interval.
_SHARES = ("flagged", "target_hit")
#: Metrics that mean nothing averaged.
_ALONE = ("score",)


def means(tables: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Interval], dict[str, str]]:
    """Mean and interval of every metric that has a value on some seed, and the reasons of those that have none."""
    values: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for table in tables:
        why = table.get("undefined")
        if isinstance(why, Mapping):
            for name, reason in why.items():
                reasons.setdefault(str(name), str(reason))
        for name, value in table.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and name not in _ALONE:
                values.setdefault(name, []).append(float(value))
    found: dict[str, Interval] = {}
    for name, column in values.items():
        interval = share_interval(column) if name in _SHARES else mean_of(name, column)
        if interval is not None:
            found[name] = interval
    return found, {name: reason for name, reason in reasons.items() if name not in found}


def mean_of(name: str, values: Sequence[float]) -> Interval | None:
    """Mean and t-interval of a metric, cut to what it can be: no AUROC is above 1, no share of alarms below 0."""
    found = mean_interval(values)
    if found is None or found.low is None or found.high is None:
        return found
    least, most = term(name).bounds
    low = found.low if least is None else min(found.mean, max(found.low, least))
    high = found.high if most is None else max(found.mean, min(found.high, most))
    return replace(found, low=low, high=high)


def share_interval(hits: list[float], z: float = 1.96) -> Interval | None:
    """A share of yes-or-no outcomes with Wilson's 95 % interval: honest at 0 and 1, and for few of them."""
    n = len(hits)
    if n == 0:
        return None
    p = sum(hits) / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), n)


def between_models(backdoored: list[float], benign: list[float]) -> Interval | None:
    """AUROC of a model detector's scores, backdoored models against benign ones, with its score interval."""
    if not backdoored or not benign:
        return None
    import torch

    value = auroc(torch.tensor(backdoored, dtype=torch.float64), torch.tensor(benign, dtype=torch.float64))
    if isinstance(value, Undefined):
        return None
    low, high = auroc_interval(value, len(backdoored), len(benign))
    return Interval(value, low, high, len(backdoored) + len(benign))
