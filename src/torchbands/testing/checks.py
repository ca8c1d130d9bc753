"""What the rules of behaviour share: outcomes, the rows a defender is given, and checks of what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.model import Model
from torchbands.testing.fixtures import demand
from torchbands.testing.toys import toy


@dataclass(frozen=True)
class Outcome:
    """What a method did on one toy: ran, or declined with a reason.

    Attributes:
        useful: whether it did what its role is for: told planted from clean, or gave a model that works; None where
            the role has no such rule.
        seen: the number behind `useful`.
    """

    ran: bool
    reason: str = ""
    useful: bool | None = None
    seen: str = ""


def defender_rows(made: Method, name: str) -> Data:
    """The clean rows that a defense declared, and no more."""
    clean = toy(name).load("clean").blind()
    needed = made.clean_needed()
    return clean.sample(needed, "contract", balanced=True) if needed else clean[torch.arange(0)]


def auroc(low: Tensor, high: Tensor) -> float:
    """Probability that a score of `high` exceeds one of `low`, ties counting half."""
    gap = high[:, None] - low[None]
    return float((gap > 0).float().mean() + 0.5 * (gap == 0).float().mean())


def finite(scores: object, n: int) -> Tensor:
    demand(isinstance(scores, Tensor), f"scores are a {type(scores).__name__}, not a tensor")
    assert isinstance(scores, Tensor)
    demand(tuple(scores.shape) == (n,), f"scores have shape {tuple(scores.shape)}, not ({n},)")
    demand(scores.is_floating_point(), f"scores are {scores.dtype}, not floating point")
    demand(bool(torch.isfinite(scores).all()), "scores are not all finite")
    return scores.detach().float().cpu()


def accuracy(model: Model, name: str) -> float:
    test = toy(name).load("test")
    logits = model.logits(test.x)
    demand(bool(torch.isfinite(logits).all()), "gave a model whose logits are not finite")
    return float((logits.argmax(1) == test.y).float().mean())


def black_box(made: Method, model: Model, call: Callable[[Model], object]) -> None:
    """A model that only answers must be served or declined."""
    box = Model.black_box(model.probabilities, model.modality, model.classes)
    try:
        call(box)
    except NotApplicable as declined:
        demand(bool(declined.reason.strip()), "declined a black box without a reason")
