"""Shared parts of the behaviour rules: outcomes, the rows a defender is given, and checks of its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.model import Model
from torchbands.testing.fixtures import demand
from torchbands.testing.toys import toy

#: Least AUROC, and least clean accuracy of a repaired model, on the toy that suits a method best.
USEFUL_AUROC, USEFUL_ACCURACY = 0.6, 0.5


@dataclass(frozen=True)
class Outcome:
    """What a method did on one toy: ran, or declined with a reason.

    Attributes:
        useful: whether it did what its role is for: told planted from clean, or gave a model that works and obeys the
            trigger half as often; None where the role has no such rule.
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


def half_as_obedient(model: Model, planted: Victim, name: str) -> tuple[bool, str]:
    """Whether a model works, and does what the attacker wants at most half as often as the victim; in words too."""
    right, before, after = accuracy(model, name), _success(planted.model, planted), _success(model, planted)
    demand(before >= 0.2, f"the toy's own victim obeys {before:.2f} of its triggers: raise contract_rate")
    seen = f"clean accuracy {right:.2f}, attack success {before:.2f} before and {after:.2f} after"
    return right >= USEFUL_ACCURACY and after <= before / 2, seen


def _success(model: Model, planted: Victim) -> float:
    value = planted.task.effect(model, planted).asr
    demand(isinstance(value, float), f"attack success is {value}")
    assert isinstance(value, float)
    return value


def black_box(made: Method, model: Model, call: Callable[[Model], object]) -> None:
    """A black-box model must be either supported or declined."""
    box = Model.black_box(model.probabilities, model.modality, model.classes)
    try:
        call(box)
    except NotApplicable as declined:
        demand(bool(declined.reason.strip()), "declined a black box without a reason")
