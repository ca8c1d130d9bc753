"""Metrics: named pure functions of a finished outcome. Undefined is None with a reason, never NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """What a number means.

    Attributes:
        name: short key used in records.
        title: for tables.
        better: "higher", "lower", or "" where neither is meant.
        bounds: smallest and largest possible value; None where unbounded.
        unit: "%" metrics are stored as fractions and shown in per cent.
    """

    name: str
    title: str
    better: str
    bounds: tuple[float | None, float | None] = (0.0, 1.0)
    unit: str = "%"
    about: str = ""


@dataclass(frozen=True)
class Undefined:
    """A value that does not exist, and why."""

    reason: str


Value = float | Undefined


def to_json(values: Mapping[str, Value]) -> dict[str, Any]:
    """Values for a record: numbers as they are, undefined as null with the reasons beside them."""
    out: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Undefined) or not math.isfinite(value):
            out[name] = None
            reasons[name] = value.reason if isinstance(value, Undefined) else f"not finite ({value})"
        else:
            out[name] = round(float(value), 6)
    if reasons:
        out["undefined"] = reasons
    return out


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval (Student's t); low and high are None for fewer than 2 values."""

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Mean and 95 % t-interval of at least one value; None for none."""
    n = len(values)
    if n == 0:
        return None
    mean = sum(values) / n
    if n == 1:
        return Interval(mean, None, None, 1)
    from scipy import stats

    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)
