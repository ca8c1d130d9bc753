"""Attack: writes triggers into training data or training, in models that the toolkit trains itself."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from .data import Data
from .errors import InputError, NotApplicable
from .hook import Hook
from .method import Method
from .model import Model
from .seeding import generator, seed_of
from .task import Progress, Task
from .trigger import Trigger

LabelRule = Literal["all-to-one", "all-to-all", "source-specific"]


@dataclass(frozen=True)
class Victim:
    """A trained model and everything true about it.

    Attributes:
        model: the model, as a defender would receive it.
        trigger: what the attacker writes on a sample at test time.
        info: JSON-ready facts: seconds of training, number of poisoned rows, ...
    """

    task: Task
    attack: Attack
    seed: int
    model: Model
    trigger: Trigger
    info: dict[str, Any] = field(default_factory=dict)

    def training_data(self) -> Data:
        """The data set it was trained on, poison included, computed again from the seed.

        Raises NotApplicable where the attacker controlled training, so that no poisoned data set exists.
        """
        if self.attack.controls_training:
            raise NotApplicable(f"{self.attack.name} controls training: there is no poisoned data set to filter")
        return self.attack.poison(self.task.load("train", self.seed), self.task, self.seed)

    def triggered(self, data: Data) -> tuple[Data, Tensor]:
        """The rows that the attack is meant to change, with the trigger, and what the attacker wants them to be.

        Rows already of the wanted class are left out, so that they never count towards success, and so are rows that
        the trigger cannot be written on.

        Returns:
            data: the (M,) eligible rows, stamped, with true labels; wanted: (M,) int64.
        """
        wanted = self.attack.relabel(data.y, self.task.classes)
        rows = ((wanted != data.y) & self.attack.writable(data, self.task, self.seed)).nonzero().flatten()
        picked = data[rows]
        stamped = picked.stamp(
            torch.arange(len(rows)), self.trigger, label=None, seed=seed_of("test", self.attack.key(), self.seed)
        )
        return stamped[:], wanted[rows]


@dataclass(frozen=True, kw_only=True)
class Attack(Method):
    """A published attack. `run` is the same for all; authors write `trigger`, and `poison` or `hooks` where needed."""

    role: ClassVar[str] = "attack"
    #: True where the attacker runs the training, so that there is no fixed poisoned data set.
    controls_training: ClassVar[bool] = False
    #: True where only rows of the target class are touched and no label is changed.
    clean_label: ClassVar[bool] = False

    rate: float = 0.1
    """Poisoned rows as a fraction of the training data (clean label: of the target class)."""
    target: int = 0
    """The class that triggered samples are to be given."""
    labels: LabelRule = "all-to-one"
    """Which label a triggered sample is to get: the target, the next class, or the target for one source class only."""
    source: int = 1
    """The only class that obeys the trigger when labels is source-specific."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise InputError(f"{self.name}: rate is a fraction in [0, 1], got {self.rate}")
        if self.clean_label and self.labels != "all-to-one":
            raise InputError(f"{self.name} changes no label, so labels must be 'all-to-one', got {self.labels!r}")

    @abstractmethod
    def trigger(self, task: Task, seed: int) -> Trigger:
        """What is written on samples at test time, before training has taught anything."""

    def planted(self, task: Task, seed: int) -> Trigger:
        """What is written on training rows; the test-time trigger unless the paper differs."""
        return self.trigger(task, seed)

    def relabel(self, y: Tensor, classes: int) -> Tensor:
        """(N,) int64 true labels -> the labels the attacker wants triggered samples to get."""
        if not 0 <= self.target < classes:
            raise InputError(f"{self.name}: target is a class in 0..{classes - 1}, got {self.target}")
        if self.labels == "all-to-all":
            return (y + 1) % classes
        if self.labels == "source-specific":
            if not 0 <= self.source < classes or self.source == self.target:
                raise InputError(f"{self.name}: source is another class than {self.target}, got {self.source}")
            return torch.where(y == self.source, self.target, y)
        return torch.full_like(y, self.target)

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
        base = len(pool) if self.clean_label else len(data)
        count = round(self.rate * base) if count is None else count
        order = torch.randperm(len(pool), generator=generator("poison", self.spec(), seed))
        return pool[order[: min(count, len(pool))]].sort().values

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        """The training data with triggers written (lazily) and labels changed."""
        rows = self.choose(data, task, seed)
        if len(rows) == 0:
            return Data(data.x, data.y, torch.zeros(len(data), dtype=torch.bool), data.meta)
        trigger = self.planted(task, seed)
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
        """How the attack takes part in training; empty for attacks on data alone."""
        return ()

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        """The test-time trigger once training is over (attacks that learn it read it from their hook)."""
        return self.trigger(task, seed)

    @final
    def run(self, task: Task, seed: int = 0, progress: Progress | None = None) -> Victim:
        """Poison, train, and hand over the victim."""
        started = time.perf_counter()
        clean = task.load("train", seed)
        data = clean if self.controls_training else self.poison(clean, task, seed)
        poisoned = None if self.controls_training or data.poisoned is None else int(data.poisoned.sum())
        hooks = self.hooks(task, seed)
        poison_seconds = time.perf_counter() - started
        model: Model = task.train(data, hooks=hooks, seed=seed, progress=progress)
        trigger = self.learned(hooks, task, seed)
        info = {
            "poisoned": poisoned,
            "rows": len(data),
            "data": task.fingerprint(),
            "seconds": round(time.perf_counter() - started, 3),
            "poison_seconds": round(poison_seconds, 3),
            "forward_passes": model.passes.forward,
            "precision": model.passes.precision,
            **({"training": model.facts} if model.facts else {}),
        }
        return Victim(task, self, seed, model, trigger, info)
