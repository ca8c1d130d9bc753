"""Other ways to make one number of several views. Each is symmetric in the members of the pool, so that its rank is a
valid p-value; which is better was chosen on one population and is to be confirmed on the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchbands.scanner.calibrate import Compared, p_value
from torchbands.scanner.views import white_box

from .tables import Scores, Zoo, auroc_of, gain, judged, rate

#: The one that `scan` uses.
PRESENT = "sum of positive parts"


def _fisher(z: Tensor) -> Tensor:
    """(views, m) -> (m,) minus the summed logarithms of each member's rank among all of the pool."""
    ranks = (z[:, None, :] >= z[:, :, None]).sum(2) / z.shape[1]
    return -ranks.log().sum(0)


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda z: z.amax(0),
    "sum of what exceeds 1": lambda z: (z - 1).clamp_min(0).sum(0) + 1e-3 * z.amax(0),
    "sum of squares of positive parts": lambda z: z.clamp_min(0).square().sum(0),
    "sum of the two largest": lambda z: z.topk(min(2, len(z)), dim=0).values.sum(0),
    "Fisher, of ranks": _fisher,
}


def combined(found: Compared, way: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The suspect's number and its p."""
    z = torch.stack(list(found.per_view.values()))
    whole = z[:, :-1].isfinite().all(0)
    numbers = way(torch.cat([z[:, :-1][:, whole], z[:, -1:]], 1).nan_to_num(0.0))
    return float(numbers[-1]), p_value(float(numbers[-1]), numbers[:-1])


def ways(zoo: Zoo, profile: str) -> dict[str, Any]:
    """Every way on the trigger views, and on all that count."""
    every = [v for v in white_box(profile, tokens=zoo.references.modality.discrete) if v.says != "evidence"]
    bad, out = zoo.group(lambda g: g in zoo.families), {}
    for said, views in {"p_trigger": [v for v in every if v.says == "trigger"], "everything": every}.items():
        found = {i: c for i, c in judged(zoo, views).items() if c is not None}
        present: Scores = {i: (float(c.combined[-1]), c.p) for i, c in found.items()}
        rows = {PRESENT: present} | {
            name: {i: combined(c, way) for i, c in found.items()} for name, way in WAYS.items()
        }
        out[said] = {
            name: {
                "all": auroc_of(told, bad, zoo.fresh),
                "families": {f: auroc_of(told, [s for s in bad if s.group == f], zoo.fresh) for f in zoo.families},
                "power": rate(told, bad, 0.05),
                "false_alarms": rate(told, zoo.fresh, 0.05),
                "gain": None if name == PRESENT else gain(told, present, bad, zoo.fresh),
            }
            for name, told in rows.items()
        }
    return out
