"""Which pairs of classes are searched when there are too many to search all.

A model selects pairs by its own clean logits, so a pair that only a backdoor brings close would be searched in the
backdoored model alone, with nothing to compare it to. Therefore each model of the pool, suspect and references alike,
nominates its `CHEAPEST` pairs, and all nominated pairs are searched in all models. A model's nominations depend only on
that model, and the pairs searched only on the pool: swapping two models swaps their numbers, the exchangeability
that the p-value needs. Searching only the suspect's pairs in the references, and not the other way round, would compare
the suspect in cells selected for being its cheapest, and raise false alarms.

The cost is bounded: at most `CHEAPEST` searches per reference and suspect, once, and at most `CHEAPEST` searches in the
suspect per reference; most pairs coincide.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.trigger import Trigger

#: Pairs that every model puts forward.
CHEAPEST = 10
#: Stands for a pair that was asked about and gave no finite number.
NOTHING = -torch.inf


@runtime_checkable
class ByPair(Protocol):
    """A detector that can be asked about single pairs of classes."""

    def of_pairs(self, model: Model, clean: Data, pairs: Tensor, *, seed: int = 0) -> Tensor:
        """(P, 2) int64 (source, target) -> (P,) what `inspect` puts into `per_pair`."""

    def trigger_of(self, model: Model, clean: Data, source: int, target: int, *, seed: int = 0) -> Trigger | None:
        """What sends samples of one class to another, where it finds any."""


def cheapest(own: Tensor) -> Tensor:
    """(..., K, K) what models found in the pairs of their own choice -> bool: the pairs that each puts forward."""
    flat = own.flatten(-2)
    ranked = torch.where(flat.isfinite(), flat, -torch.inf)
    at = ranked.topk(min(CHEAPEST, flat.shape[-1]), -1).indices
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(-1, at, True)
    return (chosen & flat.isfinite()).view(own.shape)


def forward_of(own: Tensor) -> Tensor:
    """(m, K, K) of a pool -> (K, K) bool: the pairs that any of its models puts forward."""
    return cheapest(own).any(0)


def missing(own: Tensor, asked: Tensor, wanted: Tensor) -> Tensor:
    """(P, 2) the wanted pairs that one model neither searched nor was asked about."""
    return (wanted & ~own.isfinite() & asked.isnan()).nonzero()


def pooled(own: Tensor, asked: Tensor) -> Tensor:
    """(m, K, K) of a pool: each model's own pairs and those that any model puts forward; NaN elsewhere. Whatever else a
    reference was once asked about, for another suspect, does not count."""
    answers = torch.where(asked.isfinite(), asked, torch.nan)
    return torch.where(own.isfinite(), own, torch.where(forward_of(own), answers, torch.nan))


def ask(
    detector: ByPair, model: Model, clean: Data, own: Tensor, asked: Tensor, wanted: Tensor, *, seed: int
) -> Tensor:
    """(K, K) `asked` with the answers to what of `wanted` is missing."""
    pairs = missing(own, asked, wanted)
    if len(pairs) == 0:
        return asked
    found = detector.of_pairs(model, clean, pairs, seed=seed).to(asked)
    out = asked.clone()
    out[pairs[:, 0], pairs[:, 1]] = torch.where(found.isfinite(), found, NOTHING)
    return out


def nothing_asked(own: Tensor) -> Tensor:
    """A table for `asked` before any question."""
    return torch.full_like(own, torch.nan)
