"""Task = real data + a recipe. Declarations only; the work is in networks/, learners/ and modalities/."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .data import Data
from .effect import Effect, Planted, effect
from .errors import NotApplicable
from .hook import Hook
from .method import Method
from .modality import Modality
from .model import Model
from .recipe import Learner, Network, Progress, Recipe
from .rounds import PLAIN, Rounds
from .source import Environments, Source

#: The parts of a task's data. "clean" is the defender's: held out of the training data, never of the test data.
SPLITS = ("train", "clean", "test")


@dataclass(frozen=True, kw_only=True)
class Task(Method):
    """A named learning problem: data, network and learner."""

    role: ClassVar[str] = "task"
    network: Network
    learner: Learner

    @property
    @abstractmethod
    def modality(self) -> Modality:
        """The kind of sample."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of classes."""

    @property
    def class_names(self) -> Sequence[str]:
        """A name for each class."""
        return [str(c) for c in range(self.classes)]

    @abstractmethod
    def load(self, split: str, seed: int = 0) -> Data:
        """The "train", "clean" (the defender's) or "test" rows."""

    def environment(self, seed: int, index: int) -> Any:
        """A gymnasium environment to learn in; tasks of rows have none."""
        raise NotApplicable(f"{self.name} gives rows, and no environments")

    def training_source(self, seed: int = 0) -> Source:
        """What its learner trains on: the "train" rows, or environments."""
        return Environments(self.environment) if self.learner.takes == "environments" else self.load("train", seed)

    def fingerprint(self) -> str:
        """Identifies this task's data among others of the same name; empty if there is only one."""
        return ""

    def owned(self, data: Data) -> Tensor:
        """(M,) int64 rows that an attacker may modify; by default all."""
        return torch.arange(len(data))

    def effect(self, model: Model, victim: Planted) -> Effect:
        """Behaviour of a model (the victim's own, a repaired one, a control) with and without the victim's trigger."""
        return effect(model, *victim.judged, victim.goal)

    @property
    def recipe(self) -> Recipe:
        """The recipe of its models, without any data: this is what a defense that trains is given."""
        return Recipe(self.network, self.learner, self.modality, self.classes)

    @final
    def fresh(self, seed: int) -> Model:
        """An untrained model."""
        return self.recipe.fresh(seed)

    @final
    def train(
        self,
        source: Source,
        *,
        hooks: Sequence[Hook] = (),
        seed: int = 0,
        progress: Progress | None = None,
        rounds: Rounds = PLAIN,
    ) -> Model:
        """A model trained by the task's own recipe on rows or in environments."""
        needed = self.learner.trusted_rows()
        clean = self.load("clean", seed).sample(needed, "server", seed) if needed else None
        return self.recipe.train(source, hooks=hooks, clean=clean, seed=seed, progress=progress, rounds=rounds)
