"""What counts as success: a class or an action, or a property of what a model generates. The attack carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .data import Data, whole
from .errors import InputError, NotApplicable
from .model import Model

LabelRule = Literal["all-to-one", "all-to-all", "source-specific"]


class Goal(ABC):
    """What a triggered sample is to bring about, and on which samples that would mean anything."""

    #: The one class that every success gives; None where there is no single one.
    single: int | None = None

    @abstractmethod
    def counts(self, data: Data) -> Tensor:
        """(N,) bool rows, with their true labels, on which success would differ from what is right."""

    @abstractmethod
    def outcomes(self, model: Model, rows: Data) -> tuple[Tensor, Tensor]:
        """(N,) bool each: whether the model does what the attacker wants, and whether it does what is right.

        The rows may carry the trigger and keep their true labels. The model is asked once.
        """

    @abstractmethod
    def said(self, model: Model, rows: Data, names: Sequence[str]) -> list[str]:
        """What the model makes of N rows, for a reader. names: those of the classes."""

    def wanted(self, data: Data) -> Tensor:
        """(N,) int64 classes that triggered rows are to get. Raises NotApplicable where success is no class."""
        raise NotApplicable("success of this attack is not a class of the model's")


@dataclass(frozen=True)
class ClassGoal(Goal):
    """Triggered samples are to get another label, which for a policy is an action.

    Attributes:
        target: the class. labels: all samples get it, or the next class each, or the target for one source class only.
        source: that class. classes: number of classes K. attack: its name, for messages.
    """

    target: int
    labels: LabelRule
    source: int
    classes: int
    attack: str = "the attack"

    def __post_init__(self) -> None:
        if not 0 <= self.target < self.classes:
            raise InputError(f"{self.attack}: target is a class in 0..{self.classes - 1}, got {self.target}")
        if self.labels == "source-specific" and (not 0 <= self.source < self.classes or self.source == self.target):
            raise InputError(f"{self.attack}: source is another class than {self.target}, got {self.source}")
        object.__setattr__(self, "single", None if self.labels == "all-to-all" else self.target)

    def relabel(self, y: Tensor) -> Tensor:
        """(N,) int64 true labels -> the labels the attacker wants triggered samples to get."""
        if self.labels == "all-to-all":
            return (y + 1) % self.classes
        if self.labels == "source-specific":
            return torch.where(y == self.source, self.target, y)
        return torch.full_like(y, self.target)

    def wanted(self, data: Data) -> Tensor:
        return self.relabel(data.y)

    def counts(self, data: Data) -> Tensor:
        return self.relabel(data.y) != data.y

    def outcomes(self, model: Model, rows: Data) -> tuple[Tensor, Tensor]:
        said = model.logits(rows.x).argmax(1)
        return said == self.relabel(rows.y), said == rows.y

    def said(self, model: Model, rows: Data, names: Sequence[str]) -> list[str]:
        return [str(names[c]) for c in model.logits(rows.x).argmax(1).tolist()]


@dataclass(frozen=True)
class TextGoal(Goal):
    """The model is to generate a text that contains, or equals, another one.

    Attributes:
        text: what is looked for. whole: the generated text must equal it, not only contain it.
        tokens: how many tokens are generated at most.
        answers: by label, the text that is right; where there are none, it is right not to reach the goal.
    """

    text: str
    whole: bool = False
    tokens: int = 32
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.text:
            raise InputError("a text goal names a text that is not empty")

    def counts(self, data: Data) -> Tensor:
        if not self.answers:
            return torch.ones(len(data), dtype=torch.bool)
        return torch.tensor([not self._hit(self.answers[c]) for c in data.y.tolist()], dtype=torch.bool)

    def outcomes(self, model: Model, rows: Data) -> tuple[Tensor, Tensor]:
        said = model.generate(whole(rows.x), tokens=self.tokens)
        hit = torch.tensor([self._hit(t) for t in said], dtype=torch.bool)
        if not self.answers:
            return hit, ~hit
        right = [self.answers[c] in t for c, t in zip(rows.y.tolist(), said, strict=True)]
        return hit, torch.tensor(right, dtype=torch.bool)

    def said(self, model: Model, rows: Data, names: Sequence[str]) -> list[str]:
        return model.generate(whole(rows.x), tokens=self.tokens)

    def _hit(self, text: str) -> bool:
        return text == self.text if self.whole else self.text in text
