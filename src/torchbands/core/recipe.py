"""Recipe = network + learner + modality + classes: how a model is built and trained, without any data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, final

from torch import nn

from .data import Data
from .devices import default_device
from .errors import InputError, NotApplicable
from .federated import Aggregator
from .hook import Hook, accepted
from .method import Method
from .modality import Modality
from .model import Model
from .rounds import PLAIN, Rounds
from .seeding import seed_of, seeded
from .source import Environments, Source

#: Told (done, total, what) as work goes on.
Progress = Callable[[int, int, str], None]

#: What a training has to tell besides the model, JSON-ready.
TrainingFacts = Mapping[str, Any]


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
    """A training procedure. Authors implement `learn` and declare in `accepts` which hooks it supports."""

    role: ClassVar[str] = "learner"
    #: What it learns from.
    takes: ClassVar[Literal["rows", "environments"]] = "rows"

    def accepts(self) -> tuple[type[Hook], ...]:
        """Base classes of the hooks that it calls; others are refused."""
        return ()

    def trusted_rows(self) -> int:
        """How many of the defender's clean rows the training itself needs: those of a federated server."""
        return 0

    def guarded_by(self, aggregator: Aggregator) -> Self:
        """The same learner with another aggregator of client updates."""
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
        rounds: Rounds = PLAIN,
    ) -> TrainingFacts:
        """Train the model in place; the same seed gives the same weights on one machine.

        Args:
            source: rows, or environments for a learner whose `takes` says so; InputError for the other.
            hooks: who takes part. Raises NotApplicable for one that this learner would never call.
            clean: trusted rows, where `trusted_rows` asks for some.
            rounds: for a training of rounds, who watches it and where it keeps its state; others take no notice.

        Returns what the training has to tell besides the model: JSON-ready, mostly empty.
        """
        given = "environments" if isinstance(source, Environments) else "rows"
        if given != self.takes:
            raise InputError(f"{self.name} learns from {self.takes}, and was given {given}")
        accepted(self, hooks)
        return self.learn_in_rounds(
            model, source, hooks=hooks, clean=clean, seed=seed, progress=progress, rounds=rounds
        )

    def learn_in_rounds(
        self,
        model: Model,
        source: Any,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
        rounds: Rounds,
    ) -> TrainingFacts:
        """As `learn`, for a learner that trains in rounds, shows them and can go on after the last finished one."""
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


@dataclass(frozen=True)
class Recipe:
    """How a model is built and trained.

    Attributes:
        modality: the kind of sample, as the network reads it.
        model: what a built module becomes: a classifier, unless a task makes a generator of it.
    """

    network: Network
    learner: Learner
    modality: Modality
    classes: int
    model: Callable[[nn.Module, Modality, int], Model] = Model

    def but(self, **changes: Any) -> Recipe:
        """A copy with some parts changed."""
        return replace(self, **changes)

    def untrained(self, *seed: object) -> Model:
        """A model whose weights are drawn from a seed derived from these words."""
        with seeded(*seed):
            module = self.network.build(self.modality, self.classes)
        return self.model(module.to(default_device()), self.modality, self.classes)

    def fresh(self, seed: int) -> Model:
        """An untrained model."""
        return self.untrained("init", self.network.spec(), seed)

    def train(
        self,
        source: Source,
        *,
        hooks: Sequence[Hook] = (),
        clean: Data | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        rounds: Rounds = PLAIN,
    ) -> Model:
        """A model trained on rows, or in environments. Arguments are those of `fit`."""
        fitted = seed_of("fit", seed)
        model = self.fresh(seed)
        return self.fit(model, source, hooks=hooks, clean=clean, seed=fitted, progress=progress, rounds=rounds)

    def fit(
        self,
        model: Model,
        source: Source,
        *,
        hooks: Sequence[Hook] = (),
        clean: Data | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        rounds: Rounds = PLAIN,
    ) -> Model:
        """The model, trained in place, with what the training has to tell in its `facts`.

        Args:
            clean: trusted rows, where the learner asks for some.
            rounds: as for the learner's `fit`.

        Raises NotApplicable where the learner asks for trusted rows and none are given.
        """
        if (needed := self.learner.trusted_rows()) and clean is None:
            raise NotApplicable(f"{self.learner.label()} needs {needed} trusted clean rows, and none were given")
        facts = self.learner.fit(model, source, hooks=hooks, clean=clean, seed=seed, progress=progress, rounds=rounds)
        model.facts.update(facts)
        model.module.zero_grad(set_to_none=True)
        return model
