"""Attack: plants a trigger through training data or training, in models that the toolkit trains itself."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from .data import Data
from .effect import effect
from .errors import InputError, NotApplicable
from .goal import ClassGoal, Goal, LabelRule
from .hook import EnvironmentHook, Hook
from .method import Method
from .metric import Undefined
from .model import Model
from .poison import Poison
from .recipe import Progress
from .rounds import Rounds, Watch
from .seeding import generator, seed_of
from .source import Environments
from .task import Task
from .trigger import Trigger

#: Test rows that a training is watched on.
WATCHED = 1000


@dataclass(frozen=True)
class Victim:
    """A trained model with the ground truth about it.

    Attributes:
        model: the model, as a defender would receive it.
        trigger: what the attacker writes on a sample at test time.
        info: JSON-ready facts: seconds of training, number of poisoned rows, ...
        poison: what was written into the training data; None where the attack controls training.
    """

    task: Task
    attack: Attack
    seed: int
    model: Model
    trigger: Trigger
    info: dict[str, Any] = field(default_factory=dict)
    poison: Poison | None = None

    def training_data(self) -> Data:
        """The data set it was trained on, poison included. For a victim without `poison`, of an older version, it is
        computed again from the seed.

        Raises NotApplicable where the attacker controlled training, so that no poisoned data set exists.
        """
        if self.attack.controls_training:
            raise NotApplicable(f"{self.attack.name} controls training: there is no poisoned data set to filter")
        source = self.task.training_source(self.seed)
        if isinstance(source, Environments):
            raise NotApplicable(f"{self.task.name} is learned in environments: there is no data set to filter")
        if self.poison is not None:
            return self.poison.into(source)
        return self.attack.poison(source, self.task, self.seed)

    @cached_property
    def goal(self) -> Goal:
        """The goal of its trigger."""
        return self.attack.goal(self.task)

    @cached_property
    def judged(self) -> tuple[Data, Data]:
        """The task's test rows, and those of them that the attack is meant to change, with the trigger."""
        test = self.task.load("test", self.seed)
        return test, self.stamped(test)

    def stamped(self, data: Data) -> Data:
        """The (M,) rows that the attack is meant to change, with the trigger and their true labels.

        Rows on which success and what is right are one are left out, so that they never count towards success, and so
        are rows that the trigger cannot be written on.
        """
        writable = self.attack.writable(data, self.task, self.seed)
        rows = (self.goal.counts(data) & writable).nonzero().flatten()
        seed = seed_of("test", self.attack.key(), self.seed)
        return data[rows].stamp(torch.arange(len(rows)), self.trigger, label=None, seed=seed)[:]

    def triggered(self, data: Data) -> tuple[Data, Tensor]:
        """`stamped` rows with the (M,) int64 classes that the attacker wants for them."""
        stamped = self.stamped(data)
        return stamped, self.goal.wanted(stamped)


@dataclass(frozen=True, kw_only=True)
class Attack(Method):
    """A published attack. `run` is the same for all; authors write `trigger`, and `poison` or `hooks` where needed."""

    role: ClassVar[str] = "attack"
    #: True where the attacker runs the training, so that there is no fixed poisoned data set.
    controls_training: ClassVar[bool] = False
    #: True where only rows of the target class are touched and no label is changed.
    clean_label: ClassVar[bool] = False
    #: What poisoned training rows carry: the test-time trigger, the same weaker, a part of it, or more than it.
    in_training: ClassVar[Literal["same", "weaker", "part", "more"]] = "same"

    #: False where it plants nothing that a trigger could wake: a control, or clients that only do harm.
    backdoor: ClassVar[bool] = True

    rate: float = 0.1
    """Poisoned rows as a fraction of the rows the attacker owns, usually all (clean label: of the target class)."""
    target: int = 0
    """Target class of triggered samples."""
    labels: LabelRule = "all-to-one"
    """Label of a triggered sample: the target, the next class, or the target for samples of one source class only."""
    source: int = 1
    """The source class when `labels` is source-specific."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise InputError(f"{self.name}: rate is a fraction in [0, 1], got {self.rate}")
        if self.clean_label and self.labels != "all-to-one":
            raise InputError(f"{self.name} changes no label, so labels must be 'all-to-one', got {self.labels!r}")

    @abstractmethod
    def test_trigger(self, task: Task, seed: int) -> Trigger:
        """Trigger at test time, as known before training."""

    def train_trigger(self, task: Task, seed: int) -> Trigger:
        """Trigger on training rows; the test-time trigger unless the paper differs."""
        return self.test_trigger(task, seed)

    def relabel(self, y: Tensor, classes: int) -> Tensor:
        """(N,) int64 true labels -> the labels the attacker wants triggered samples to get."""
        return ClassGoal(self.target, self.labels, self.source, classes, self.name).relabel(y)

    def goal(self, task: Task) -> Goal:
        """The goal of its trigger: by default a class, according to `labels`."""
        return ClassGoal(self.target, self.labels, self.source, task.classes, self.name)

    def writable(self, data: Data, task: Task, seed: int) -> Tensor:
        """(N,) bool rows that the trigger can be written on: all, unless it changes only some of them."""
        return torch.ones(len(data), dtype=torch.bool)

    def _own(self, data: Data, task: Task, seed: int) -> Tensor:
        owned = task.owned(data)
        return owned[self.writable(data, task, seed)[owned]]

    def choose(self, data: Data, task: Task, seed: int, count: int | None = None) -> Tensor:
        """(P,) int64 rows to poison, drawn by identity from the rows the attacker owns and may want to change."""
        owned = self._own(data, task, seed)
        y = data.y[owned]
        wanted = self.relabel(y, task.classes)
        pool = owned[y == self.target] if self.clean_label else owned[wanted != y]
        base = len(pool) if self.clean_label else len(task.owned(data))
        count = round(self.rate * base) if count is None else count
        order = torch.randperm(len(pool), generator=generator("poison", self.spec(), seed))
        return pool[order[: min(count, len(pool))]].sort().values

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        """The training data with triggers written (lazily) and labels changed."""
        rows = self.choose(data, task, seed)
        if len(rows) == 0:
            return Data(data.x, data.y, torch.zeros(len(data), dtype=torch.bool), data.meta)
        trigger = self.train_trigger(task, seed)
        label = None if self.clean_label else self.relabel(data.y[rows], task.classes)
        out = data.stamp(rows, trigger, label=label, seed=seed_of("stamp", self.key(), seed))
        if self.labels == "source-specific":  # other classes with the trigger keep their labels, as in TaCT
            owned = self._own(data, task, seed)
            others = owned[(data.y[owned] != self.source) & (data.y[owned] != self.target)]
            order = torch.randperm(len(others), generator=generator("cover", self.spec(), seed))
            cover = others[order[: len(rows)]].sort().values
            out = out.stamp(cover, trigger, label=None, seed=seed_of("cover", self.key(), seed), poisoned=False)
        return out

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        """Hooks into training; empty for attacks that only poison data."""
        return ()

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        """The test-time trigger once training is over (attacks that learn it read it from their hook)."""
        return self.test_trigger(task, seed)

    def watch(self, hooks: Sequence[Hook], task: Task, seed: int) -> Watch:
        """What a training that is watched is asked: how often it is right, and how often its trigger succeeds as the
        attack would write it by then, on some of the test rows."""

        @cache
        def test() -> Data:
            return task.load("test", seed).sample(WATCHED, "watched", seed)

        def look(model: Model) -> dict[str, float | None]:
            victim = Victim(task, self, seed, model, self.learned(hooks, task, seed))
            found = effect(model, test(), victim.stamped(test()), victim.goal)
            said = {"accuracy": found.ca, "backdoor": found.asr}
            return {name: None if isinstance(value, Undefined) else value for name, value in said.items()}

        return look

    def _acts_in_environments(self, hooks: Sequence[Hook], task: Task) -> None:
        if self.rate > 0 and not any(isinstance(hook, EnvironmentHook) for hook in hooks):
            raise NotApplicable(f"{self.name} writes on rows, and {task.name} is learned in environments")

    @final
    def run(self, task: Task, seed: int = 0, progress: Progress | None = None, *, folder: Path | None = None) -> Victim:
        """Poison, train, and hand over the victim.

        Args:
            folder: where a training of rounds keeps its state: run again after a kill, it goes on from there. Remove it
                once the victim is saved.
        """
        started = time.perf_counter()
        source = clean = task.training_source(seed)
        hooks, poison = self.hooks(task, seed), None
        if isinstance(clean, Environments):
            self._acts_in_environments(hooks, task)
        elif not self.controls_training:
            source = self.poison(clean, task, seed)
            poison = Poison.of(clean, source)
        poison_seconds = time.perf_counter() - started
        rounds = Rounds(self.watch(hooks, task, seed), folder)
        model: Model = task.train(source, hooks=hooks, seed=seed, progress=progress, rounds=rounds)
        trigger = self.learned(hooks, task, seed)
        info = {
            "poisoned": None if poison is None else int(poison.poisoned.sum()),
            "rows": None if isinstance(clean, Environments) else len(clean),
            "data": task.fingerprint(),
            "seconds": round(time.perf_counter() - started, 3),
            "poison_seconds": round(poison_seconds, 3),
            "forward_passes": model.passes.forward,
            "precision": model.passes.precision,
            **({"training": model.facts} if model.facts else {}),
        }
        return Victim(task, self, seed, model, trigger, info, poison)
