"""Shared by trigger inversions: freezing the network, schedules of the size penalty, and a short search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.budget import in_parts
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.modality import Encoded, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator
from torchbands.core.trigger import Trigger
from torchbands.modalities.tokens import TokenMixture

#: Most classes that are searched one by one: ten thousand would take hours to days.
MOST_CLASSES = 1000


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the parameters while only inputs are searched: a third of the backward pass is saved."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class Rules:
    """Wang et al.'s constants: when the weight on a trigger's size starts, grows, shrinks, and when to stop."""

    initial: float
    factor: float
    threshold: float
    patience: int
    stop_patience: int
    stop_ratio: float


class CostSchedule:
    """One size weight per class, each on its own schedule.

    A weight is 0 until the trigger has succeeded `patience` epochs in a row, then starts at `initial`; it is multiplied
    by `factor` after as many successes and divided by factor ** 1.5 after as many failures. A class is done when its
    weight has gone both ways and its smallest successful trigger has not shrunk for `stop_patience` epochs.
    """

    def __init__(self, rules: Rules, classes: int, device: torch.device) -> None:
        self.rules = rules

        def zeros(dtype: torch.dtype) -> Tensor:
            return torch.zeros(classes, dtype=dtype, device=device)

        self.cost = zeros(torch.float32)
        self.best = torch.full_like(self.cost, torch.inf)
        self.done = zeros(torch.bool)
        self._last = self.best.clone()
        self._wins, self._losses, self._waited = (zeros(torch.int64) for _ in range(3))
        self._raised, self._lowered = zeros(torch.bool), zeros(torch.bool)

    def step(self, success: Tensor, size: Tensor, active: Tensor) -> Tensor:
        """After an epoch: (K,) success rates and sizes, (K,) bool still searched -> (K,) bool new smallest triggers."""
        rules = self.rules
        good = success >= rules.threshold
        better = active & good & (size < self.best)
        self.best = torch.where(better, size, self.best)
        stuck = self.best.isfinite() & (self.best >= rules.stop_ratio * self._last)
        self._waited = torch.where(stuck, self._waited + 1, 0)
        self._last = torch.minimum(self._last, self.best)

        self._wins = torch.where(good, self._wins + 1, 0)
        self._losses = torch.where(good, 0, self._losses + 1)
        up, down, idle = self._wins >= rules.patience, self._losses >= rules.patience, self.cost == 0
        self.cost = torch.where(
            up,
            torch.where(idle, rules.initial, self.cost * rules.factor),
            torch.where(down, self.cost / rules.factor**1.5, self.cost),
        )
        self._raised |= up & ~idle
        self._lowered |= down & ~idle
        self._wins, self._losses = torch.where(up, 0, self._wins), torch.where(down, 0, self._losses)
        self.done |= active & self._raised & self._lowered & (self._waited >= rules.stop_patience)
        return better


@dataclass(frozen=True)
class Quick:
    """A short search in which the weight on the size follows success at every step, and the smallest success counts.

    Attributes:
        first: weight on the size at the first step, for a trigger that fills the sample (it is divided by the size).
        up, down: by which the weight is multiplied after a success and divided after a failure.
        threshold: share of its samples that a trigger must send to its target to be a success.
    """

    steps: int
    lr: float
    betas: tuple[float, float]
    first: float
    up: float
    down: float
    threshold: float


class Found(NamedTuple):
    """(T,) smallest size that succeeded, or the starting size over the best success share where none did (NaN where the
    search left the finite numbers); (T,) best success share; (T,) whether any step succeeded."""

    size: Tensor
    success: Tensor
    reached: Tensor


def search(
    model: Model,
    inputs: Encoded,
    rows: Tensor,
    target: Tensor,
    rules: Quick,
    rng: RowRng,
    *,
    keep: int = 1,
    failed: bool = False,
) -> tuple[Found, dict[int, Trigger], Tensor]:
    """The smallest triggers that send each row set to its target, all searched side by side in chunks.

    Args:
        inputs: an embedded batch. rows: (T, n) int64 rows of it that trigger t is written on. target: (T,) int64.
        rng: row t draws where trigger t starts.
        keep: how many of the smallest triggers that succeeded are handed back. failed: of those that did not, too.

    Returns:
        what was found; t -> trigger, the smallest first; (T,) sizes divided by the starting size.
    """

    def of(part: Tensor) -> tuple[Found, Tensor, list[tuple[float, int, Trigger]]]:
        perturbation = model.modality.perturbation(model, rng.at(part))
        found, start = _search(model, perturbation, inputs, rows[part], target[part], rules)
        order = found.size.argsort(stable=True)
        best = order[found.reached[order] | failed][:keep].tolist()
        return found, start, [(float(found.size[k]), int(part[k]), perturbation.harden(k)) for k in best]

    parts = in_parts(model, len(rows), of, each=rows.shape[1], gradients=True)
    found = Found(*(torch.cat(column) for column in zip(*(f for f, _, _ in parts), strict=True)))
    kept = sorted((one for _, _, best in parts for one in best), key=lambda one: one[:2])[:keep]
    return (
        found,
        {t: trigger for _, t, trigger in kept},
        found.size / torch.cat([start for _, start, _ in parts]),
    )


def _search(
    model: Model, perturbation: Perturbation, inputs: Encoded, rows: Tensor, target: Tensor, rules: Quick
) -> tuple[Found, Tensor]:
    count, n = rows.shape
    which = torch.arange(count, device=model.device).repeat_interleave(n)
    e, wanted = inputs.at(rows.flatten().to(model.device)), target.to(model.device).repeat_interleave(n)
    optimizer = torch.optim.Adam(perturbation.parameters(), lr=rules.lr, betas=rules.betas)
    start = perturbation.size().detach()
    weight = rules.first / start
    best, share = torch.full_like(start, torch.inf), torch.zeros_like(start)
    kept = {name: p.detach().clone() for name, p in perturbation.named_parameters()}
    last = start
    for _ in range(rules.steps):
        optimizer.zero_grad(set_to_none=True)
        hits: list[Tensor] = []
        for some in torch.arange(count * n, device=model.device).split(model.gradient_chunk):  # one trigger may not fit
            logits = model.logits_at(perturbation(e.at(some), which[some]))
            loss = F.cross_entropy(logits, wanted[some], reduction="sum") / n
            hits.append(logits.detach().argmax(1) == wanted[some])
            if sum(map(len, hits)) == count * n:
                size = perturbation.size()
                loss = loss + (weight * size).sum()
            loss.backward()
        with torch.no_grad():
            success = torch.cat(hits).view(count, n).float().mean(1)
            last, good = size.detach(), success >= rules.threshold
            better = good & (last < best)
            best, share = torch.where(better, last, best), torch.maximum(share, success)
            for name, p in perturbation.named_parameters():
                kept[name] = torch.where(better.view(-1, *[1] * (p.ndim - 1)), p.detach(), kept[name])
            weight = torch.where(good, weight * rules.up, weight / rules.down)
        optimizer.step()
    reached = best.isfinite()
    with torch.no_grad():
        for name, p in perturbation.named_parameters():
            p.copy_(torch.where(reached.view(-1, *[1] * (p.ndim - 1)), kept[name], p))
    failed = torch.where(last.isfinite(), start / share.clamp_min(0.5 / n), torch.nan)
    size = torch.where(reached, best, failed)
    return Found(size.cpu(), share.cpu(), reached.cpu()), start.cpu()


def token_writer(method: Method, model: Model) -> TokenMixture:
    """What writes tokens of the whole vocabulary on samples. Raises NotApplicable where samples are not made of any."""
    kind = model.modality
    if not kind.discrete:
        raise NotApplicable(f"{kind.name} samples are not made of tokens that {method.name} could try one by one")
    made = kind.perturbation(model, RowRng(0, torch.arange(1)))
    if not isinstance(made, TokenMixture):
        raise NotApplicable(f"triggers of {kind.name} are not searched token by token")
    return made


def others(y: Tensor, k: int) -> Tensor:
    """(N,) bool: rows that are not of class k; all rows where there are no others."""
    other = y != k
    return other if bool(other.any()) else torch.ones_like(other)


def rows_of(mine: Tensor, n: int, *preferred: Tensor) -> Tensor:
    """(n,) rows where `mine` holds, those of every `preferred` (N,) bool mask first; repeated if there are too few."""
    order = mine.nonzero().flatten()
    for mask in reversed(preferred):
        order = order[torch.argsort((~mask[order]).long(), stable=True)]
    if len(preferred):
        best = int(torch.stack([mask[order] for mask in preferred]).all(0).sum())
        order = order[: max(best, min(n, len(order)))] if best >= n else order
    return order.repeat(-(-n // max(1, len(order))))[:n]


def searched(classes: int) -> Tensor:
    """The classes that are searched one by one, in order: all, or of very many a draw, the same in every model."""
    if classes <= MOST_CLASSES:
        return torch.arange(classes)
    return torch.randperm(classes, generator=generator("searched classes", classes))[:MOST_CLASSES].sort().values


def of_all(found: Tensor, at: Tensor, classes: int) -> Tensor:
    """(K,) numbers of the classes `at`; NaN for those that were not searched."""
    made = torch.full((classes,), torch.nan, dtype=found.dtype)
    made[at] = found.cpu()
    return made


def told(at: Tensor, classes: int) -> dict[str, int]:
    """How many classes were searched, where not all were."""
    return {} if len(at) == classes else {"searched": len(at)}


def fewer(rows: int, budget: int, classes: int, least: int = 8) -> int:
    """`rows` per class, or fewer with many classes, so that about `budget` are used in all."""
    return max(min(rows, least), min(rows, budget // max(1, classes)))
