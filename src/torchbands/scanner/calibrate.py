"""P-values from the views' statistics. The suspect and the references form one pool and are treated alike, so the rank
of the suspect is a valid p-value for any statistic (full conformal prediction; Vovk et al., 2005): under
exchangeability, P(p <= alpha) <= alpha for any number of references. No calibration split is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

#: From this many classes on, each model's own median over classes is subtracted from every class.
CENTRED_FROM = 4
#: Shrinkage of a cell's variance: it counts as if this many more models with the typical variance had been seen.
PRIOR = 4.0
#: Cells with values from fewer models than this are not compared.
FEWEST = 5
#: Numbers of the pool processed at once, in float64, to bound memory: with K classes there are K^2 cells.
TOGETHER = 1 << 22


@dataclass(frozen=True)
class Kind:
    """How a view's numbers are compared between models.

    Attributes:
        sides: 1 if only large values are suspicious, 2 if both tails are.
        centre: whether to subtract the model's own median (from `CENTRED_FROM` classes on).
        reduce: how cells become one number: the maximum, the mean of the five largest, or the more extreme of both.
        floor: lower bound on a cell's standard deviation, as a fraction of the largest number in the pool. Without it,
            a negligible difference would stand out wherever the other models happen to be almost identical.
    """

    sides: Literal[1, 2] = 1
    centre: bool = True
    reduce: Literal["max", "top5", "either"] = "max"
    floor: float = 0.0


def p_value(mine: float, references: Tensor) -> float:
    """(1 + number of references at least as large) / (n + 1)."""
    return (1 + int((references >= mine).sum())) / (len(references) + 1)


def standard_scores(pool: Tensor, kind: Kind) -> Tensor:
    """(m, ...) numbers of m models -> (m, cells) by how much each model differs from all others of the pool, in their
    standard deviations. NaN where a cell is not there; NaN and infinite numbers are taken as not there."""
    classes = pool.shape[-1] if pool.ndim > 1 else 1
    flat = pool.reshape(len(pool), -1)
    middle = torch.zeros(len(flat), 1, dtype=torch.float64)
    if kind.centre and classes >= CENTRED_FROM:
        middle = torch.stack([_finite(row).nanmedian() for row in flat])[:, None]
    out = torch.empty(flat.shape, dtype=torch.float64)  # first the variances, then the scores in their place
    usual = torch.zeros(len(flat), 1, dtype=torch.float64)
    largest = torch.zeros((), dtype=torch.float64)
    parts = [
        slice(k, k + max(1, TOGETHER // len(flat))) for k in range(0, flat.shape[1], max(1, TOGETHER // len(flat)))
    ]
    for part in parts:
        here = _Part.of(flat[:, part], middle)
        out[:, part] = torch.where(here.n >= FEWEST, here.variance(), torch.nan)
        largest = torch.maximum(largest, here.filled.abs().max())
    for row, typical in zip(out, usual, strict=True):
        typical.copy_(row.nanmedian().nan_to_num(0.0))
    for part in parts:
        out[:, part] = _Part.of(flat[:, part], middle).scores(usual, kind.floor * largest)
    return out


@dataclass(frozen=True)
class _Part:
    """Some cells of m models: (m, cells) numbers with 0 where there is none, whether there is one, and the others' mean
    and how many they are."""

    filled: Tensor
    there: Tensor
    n: Tensor
    mean: Tensor

    @classmethod
    def of(cls, cells: Tensor, middle: Tensor) -> _Part:
        values = _finite(cells) - middle
        there = values.isfinite()
        n = there.sum(0) - there.long()
        filled = values.nan_to_num(0.0)
        return cls(filled, there, n, (filled.sum(0) - filled) / n.clamp_min(1))

    def variance(self) -> Tensor:
        squares = self.filled.square()
        found = (squares.sum(0) - squares) / self.n.clamp_min(1) - self.mean.square()
        return found.clamp_min(0) * self.n / (self.n - 1).clamp_min(1)

    def scores(self, usual: Tensor, floor: Tensor) -> Tensor:
        spread = ((self.variance() * self.n + usual * PRIOR) / (self.n + PRIOR)).sqrt()
        if float(floor):
            spread = (spread.square() + floor.square()).sqrt()
        z = (self.filled - self.mean) / (spread * (1 + 1 / self.n.clamp_min(1)).sqrt()).clamp_min(1e-9)
        return torch.where(self.there & (self.n >= FEWEST), z.clamp(-1e6, 1e6), torch.nan)


def _finite(numbers: Tensor) -> Tensor:
    values = numbers.double()
    return torch.where(values.isfinite(), values, torch.nan)


def reduced(z: Tensor, kind: Kind) -> Tensor:
    """(m, cells) standard scores -> (m,), higher more suspicious; NaN where a model has no cell."""
    if kind.reduce == "either":
        plain = Kind(centre=False)
        both = [standard_scores(reduced(z, replace(kind, reduce=r))[:, None], plain) for r in ("max", "top5")]
        return torch.cat(both, 1).amax(1)
    return torch.cat([_reduced(some, kind) for some in z.split(max(1, TOGETHER // max(1, z.shape[1])))])


def _reduced(z: Tensor, kind: Kind) -> Tensor:
    size = z.abs() if kind.sides == 2 else z
    filled = torch.where(size.isfinite(), size, -torch.inf)
    if kind.reduce == "max":
        out = filled.amax(1)
    else:
        top = filled.topk(min(5, filled.shape[1]), dim=1).values
        there = top.isfinite()
        out = torch.where(there, top, 0.0).sum(1) / there.sum(1).clamp_min(1)
        out = torch.where(there.any(1), out, -torch.inf)
    return torch.where(out.isfinite(), out, torch.nan)


@dataclass(frozen=True)
class Compared:
    """A pool whose last member is the suspect.

    Attributes:
        per_view: name -> (m,) the view's number, in standard deviations of the other members.
        cells: name -> (cells,) the suspect's standard scores.
        combined: (m,) sum of the positive parts. p: the suspect's. p_views: each view's own.
        references: how many are behind p: those that have every view that the suspect has.
    """

    per_view: dict[str, Tensor]
    cells: dict[str, Tensor]
    combined: Tensor
    p: float
    p_views: dict[str, float]
    references: int


def compare(pools: Mapping[str, Tensor], kinds: Mapping[str, Kind]) -> Compared | None:
    """Judge the last member of every pool against the others. None where no view can be compared.

    Args:
        pools: view -> (m, ...) numbers; NaN where a model lacks them.
    """
    per_view: dict[str, Tensor] = {}
    cells: dict[str, Tensor] = {}
    for name, pool in pools.items():
        z = standard_scores(pool, kinds[name])
        number = reduced(z, kinds[name])
        if not bool(number[-1].isfinite()) or int(number.isfinite().sum()) <= FEWEST:
            continue
        per_view[name] = standard_scores(number[:, None], Kind(centre=False)).flatten()
        cells[name] = z[-1]
    if not per_view:
        return None
    combined = torch.stack([v.nan_to_num(0.0).clamp_min(0) for v in per_view.values()]).sum(0)
    # among models without any positive part the largest deviation decides, so that p is not 1 for all of them
    highest = torch.stack([v.nan_to_num(-1e3) for v in per_view.values()]).amax(0)
    combined = torch.where(combined > 0, combined, highest.clamp_max(0))
    p_views = {name: p_value(float(v[-1]), v[:-1][v[:-1].isfinite()]) for name, v in per_view.items()}
    # a reference that lacks a view has a smaller sum for no reason of its own: it is not ranked
    whole = torch.stack([v[:-1].isfinite() for v in per_view.values()]).all(0)
    p = p_value(float(combined[-1]), combined[:-1][whole])
    return Compared(per_view, cells, combined, p, p_views, int(whole.sum()))
