"""Task = real data + a network + a learner. Recipes only; the work is in networks/, learners/ and modalities/."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .data import Data
from .devices import default_device
from .method import Method
from .modality import Modality
from .model import Model
from .seeding import seed_of, seeded

#: Told (done, total, what) as work goes on.
Progress = Callable[[int, int, str], None]

#: The parts of a task's data. "clean" is the defender's: held out of the training data, never of the test data.
SPLITS = ("train", "clean", "test")


class Hook:
    """How an attack that controls training takes part. Every method is optional; the default changes nothing."""

    def begin(self, model: Model, data: Data, seed: int) -> None:
        """Before the first step."""

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        """Change a raw batch, before augmentation."""
        return x, y

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor | None:
        """A loss in place of cross-entropy on the augmented batch; None keeps that."""
        return None

    def after_step(self, model: Model) -> None:
        """After the optimiser's step."""

    def end(self, model: Model, data: Data, seed: int) -> None:
        """After the last step."""

    def update(self, delta: Tensor, client: int, round_: int) -> Tensor:
        """Federated: change a malicious client's (D,) update before it is sent."""
        return delta

    def env(self, env: Any) -> Any:
        """Control: wrap the gymnasium environment."""
        return env


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
    """How a task's data becomes a model."""

    role: ClassVar[str] = "learner"

    @abstractmethod
    def fit(
        self, model: Model, data: Data, *, hooks: Sequence[Hook] = (), seed: int = 0, progress: Progress | None = None
    ) -> None:
        """Train the model in place; the same seed gives the same weights on one machine."""


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

    def fingerprint(self) -> str:
        """What tells this task's data from other data of the same name; empty where there is only one."""
        return ""

    def owned(self, data: Data) -> Tensor:
        """(M,) int64 rows that an attacker may touch: all of them, unless the task says less."""
        return torch.arange(len(data))

    def fresh(self, seed: int) -> Model:
        """An untrained model."""
        with seeded("init", self.network.spec(), seed):
            module = self.network.build(self.modality, self.classes)
        return Model(module.to(default_device()), self.modality, self.classes)

    def train(
        self, data: Data, *, hooks: Sequence[Hook] = (), seed: int = 0, progress: Progress | None = None
    ) -> Model:
        """A model trained on data by the task's own recipe."""
        model = self.fresh(seed)
        self.learner.fit(model, data, hooks=hooks, seed=seed_of("fit", seed), progress=progress)
        for hook in hooks:
            hook.end(model, data, seed)
        model.module.zero_grad(set_to_none=True)
        return model
