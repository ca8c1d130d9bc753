"""What a model does with and without the trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .data import Data
from .goal import Goal
from .metric import Undefined, Value
from .model import Model
from .trigger import Trigger


@dataclass(frozen=True)
class Effect:
    """What one model does on clean and on triggered samples.

    Attributes:
        ca: how often it is right on clean ones. asr: how often a triggered one does what the attacker wants; ra: how
        often it still does what is right. Samples on which both are one never count as triggered.
    """

    ca: Value
    asr: Value
    ra: Value

    def values(self) -> dict[str, Value]:
        return {"ca": self.ca, "asr": self.asr, "ra": self.ra}


class Planted(Protocol):
    """What a task needs to know about a victim to measure a model with its trigger."""

    @property
    def goal(self) -> Goal: ...
    @property
    def trigger(self) -> Trigger: ...
    @property
    def seed(self) -> int: ...
    @property
    def judged(self) -> tuple[Data, Data]: ...


def share(hits: Tensor, what: str) -> Value:
    """Mean of a bool tensor; undefined when it is empty."""
    return float(hits.float().mean()) if len(hits) else Undefined(f"there are no {what}")


def effect(model: Model, test: Data, triggered: Data, goal: Goal) -> Effect:
    """Measured on rows: one pass over clean rows and one over triggered rows, which keep their true labels."""
    _, right = goal.outcomes(model, test)
    reached, still = goal.outcomes(model, triggered)
    return Effect(share(right, "test rows"), share(reached, "rows to trigger"), share(still, "rows to trigger"))
