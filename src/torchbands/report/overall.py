"""A defense over all attacks: the mean and the worst, in which a run that failed counts as the worst possible value.

Else a defense that crashes on the hardest attack would look best. A run that was declined has no value, and neither has
one that was not made: whoever ranks defenses must compare them on the same attacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchbands.core.metric import Interval

from .means import between_models, mean_of
from .read import Record
from .roles import Role

_MODELS = "model-detector"


@dataclass(frozen=True)
class Overall:
    """As the fields of the same names of `results.Defense`."""

    mean: Interval | None
    worst: tuple[str, Interval] | None
    judged: tuple[str, ...]
    failed: int


def over_attacks(records: Sequence[Record], role: Role, attacks: Sequence[str]) -> Overall:
    """One defense's records over `attacks`, those that took hold."""
    planted = [r for r in records if r["attack_label"] in attacks and r.get("valid") is True]
    benign = [r for r in records if r["attack"] == "clean" and r.get("asked") is True]
    each = {a: [r for r in planted if r["attack_label"] == a] for a in attacks}
    if records[0]["role"] == _MODELS:
        clean = scores(benign, failed=math.inf)
        found = {a: between_models(scores(mine, failed=-math.inf), clean) for a, mine in each.items()}
        judged = {a: v for a, v in found.items() if v is not None}
        mine = [r for r in planted if r["attack_label"] in judged]
        mean = between_models(scores(mine, failed=-math.inf), clean)
        counted = [*mine, *benign] if judged else []
    else:
        values = {a: _values(mine, role) for a, mine in each.items()}
        judged = {a: v for a, told in values.items() if (v := mean_of(role.headline, list(told.values()))) is not None}
        mean = _over_seeds(role.headline, {a: values[a] for a in judged})
        counted = [r for r in planted if r["attack_label"] in judged]
    worst = (max if role.lower_is_better else min)(judged.items(), key=lambda pair: pair[1].mean, default=None)
    return Overall(mean, worst, tuple(judged), sum(r["status"] == "failed" for r in counted))


def worst_value(role: Role) -> float:
    """What a failed run counts as: attack success 1, AUROC 0."""
    return 1.0 if role.lower_is_better else 0.0


def _values(records: Sequence[Record], role: Role) -> dict[int, float]:
    """The headline by seed."""
    out: dict[int, float] = {}
    for r in records:
        value = (r.get("metrics") or {}).get(role.headline) if r["status"] == "done" else None
        if r["status"] == "failed":
            out[int(r["seed"])] = worst_value(role)
        elif isinstance(value, (int, float)):
            out[int(r["seed"])] = float(value)
    return out


def _over_seeds(name: str, values: dict[str, dict[int, float]]) -> Interval | None:
    """The mean over attacks per seed, then over seeds; without an interval where a seed lacks an attack."""
    if not values:
        return None
    seeds = {seed for told in values.values() for seed in told}
    whole = [seed for seed in seeds if all(seed in told for told in values.values())]
    if len(whole) < len(seeds):  # such a seed would shift the mean
        overall = sum(sum(told.values()) / len(told) for told in values.values()) / len(values)
        return Interval(overall, None, None, len(values))
    return mean_of(name, [sum(told[seed] for told in values.values()) / len(values) for seed in sorted(whole)])


def scores(records: Iterable[Record], *, failed: float | None = None) -> list[float]:
    """A model detector's scores; `failed` in place of those of runs that failed, if given."""
    out = []
    for r in records:
        value = (r.get("metrics") or {}).get("score") if r["status"] == "done" else None
        if r["status"] == "failed" and failed is not None:
            out.append(failed)
        elif isinstance(value, (int, float)):
            out.append(float(value))
    return out
