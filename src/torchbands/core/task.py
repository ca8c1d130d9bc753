"""Task = real data + a network + a learner. Recipes only; the work is in networks/, learners/ and modalities/."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor, nn

from .data import Data
from .devices import default_device
from .effect import Effect, Planted, effect
from .errors import InputError, NotApplicable
from .federated import Aggregator
from .hook import Hook, accepted
from .method import Method
from .modality import Modality
from .model import Model
from .seeding import seed_of, seeded
from .source import Environments, Source

#: Told (done, total, what) as work goes on.
Progress = Callable[[int, int, str], None]

#: What a training has to tell besides the model, JSON-ready.
TrainingFacts = Mapping[str, Any]

#: The parts of a task's data. "clean" is the defender's: held out of the training data, never of the test data.
SPLITS = ("train", "clean", "test")


@dataclass(frozen=True, kw_only=True)
class Network(Method):
    """An architecture as plain hyper-parameters."""

    role: ClassVar[str] = "network"

    def reads(self, modality: Modality) -> Modality:
        """The modality as this network reads it: one with a tokenizer of its own changes how text is encoded."""
        return modality

    @abstractmethod
    def build(self, modality: Modality, classes: int) -> nn.Module:
        """A freshly initialised module (from torch's global generator, which the caller seeds)."""


@dataclass(frozen=True, kw_only=True)
class Learner(Method):
    """How a task's data becomes a model. Authors write `learn` and say in `accepts` which hooks it lets act."""

    role: ClassVar[str] = "learner"
    #: What it learns from.
    takes: ClassVar[Literal["rows", "environments"]] = "rows"

    def accepts(self) -> tuple[type[Hook], ...]:
        """The bases of the hooks that it calls: the others are refused."""
        return ()

    def trusted_rows(self) -> int:
        """How many of the defender's clean rows the training itself needs: those of a federated server."""
        return 0

    def guarded_by(self, aggregator: Aggregator) -> Self:
        """The same learner, its clients' updates joined by this aggregator."""
        raise NotApplicable(f"{self.name} trains in one place: no client sends an update that could be aggregated")

    @final
    def fit(
        self,
        model: Model,
        source: Source,
        *,
        hooks: Sequence[Hook] = (),
        clean: Data | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> TrainingFacts:
        """Train the model in place; the same seed gives the same weights on one machine.

        Args:
            source: rows, or environments for a learner whose `takes` says so; InputError for the other.
            hooks: who takes part. Raises NotApplicable for one that this learner would never call.
            clean: trusted rows, where `trusted_rows` asks for some.

        Returns what the training has to tell besides the model: JSON-ready, mostly empty.
        """
        given = "environments" if isinstance(source, Environments) else "rows"
        if given != self.takes:
            raise InputError(f"{self.name} learns from {self.takes}, and was given {given}")
        accepted(self, hooks)
        return self.learn(model, source, hooks=hooks, clean=clean, seed=seed, progress=progress)

    @abstractmethod
    def learn(
        self,
        model: Model,
        source: Any,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
    ) -> TrainingFacts:
        """The training itself, from a `Data` or an `Environments` as `takes` says.

        It calls its hooks' `begin` and `end` through `torchbands.core.hook.taking_part`.
        """


@dataclass(frozen=True, kw_only=True)
class Task(Method):
    """A named problem: what is learned, from what, by which network and learner."""

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
        """What its learner trains on: the "train" rows, or its environments."""
        return Environments(self.environment) if self.learner.takes == "environments" else self.load("train", seed)

    def fingerprint(self) -> str:
        """What tells this task's data from other data of the same name; empty where there is only one."""
        return ""

    def owned(self, data: Data) -> Tensor:
        """(M,) int64 rows that an attacker may touch: all of them, unless the task says less."""
        return torch.arange(len(data))

    def effect(self, model: Model, victim: Planted) -> Effect:
        """What a model (the victim's own, a repaired one, a control) does with and without the victim's trigger."""
        return effect(model, *victim.judged, victim.goal)

    def fresh(self, seed: int) -> Model:
        """An untrained model."""
        with seeded("init", self.network.spec(), seed):
            module = self.network.build(self.modality, self.classes)
        return Model(module.to(default_device()), self.modality, self.classes)

    def train(
        self, source: Source, *, hooks: Sequence[Hook] = (), seed: int = 0, progress: Progress | None = None
    ) -> Model:
        """A model trained on rows, or in environments, by the task's own recipe."""
        model, needed = self.fresh(seed), self.learner.trusted_rows()
        clean = self.load("clean", seed).sample(needed, "server", seed) if needed else None
        facts = self.learner.fit(model, source, hooks=hooks, clean=clean, seed=seed_of("fit", seed), progress=progress)
        model.facts.update(facts)
        model.module.zero_grad(set_to_none=True)
        return model
