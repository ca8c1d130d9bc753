"""Synthetic tasks that train in about a second: one per modality, one federated, one with an environment."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.effect import Effect, Planted, share
from torchbands.core.errors import InputError, MissingExtra, UnknownName
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Network
from torchbands.core.registry import build, entries
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.task import SPLITS, Task
from torchbands.environments.rollout import rollout
from torchbands.learners.bandit import Reinforce
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.sgd import SGD
from torchbands.modalities.code import Code
from torchbands.modalities.image import Image
from torchbands.modalities.observation import Observation
from torchbands.modalities.tabular import Field, Tabular
from torchbands.modalities.text import Text
from torchbands.networks import SmallCNNNetwork
from torchbands.networks.dense import MLPNetwork
from torchbands.networks.text_cnn import TextCNNNetwork
from torchbands.testing import synthetic

#: Toys named after the modality they have.
MODALITIES = ("image", "text", "tabular", "observation", "code")
#: Every toy.
TOYS = (*MODALITIES, "federated", "control")

_ROWS = {"train": 1024, "clean": 512, "test": 512}
_SGD = SGD(epochs=6, batch=64, lr=0.1, precision="float32")
_ADAM = SGD(epochs=6, batch=64, lr=1e-2, optimizer="adamw", precision="float32")


@dataclass(frozen=True, kw_only=True)
class Toy(Task):
    """Rows drawn from a fixed distribution: class signal with noise."""

    network: Network = MLPNetwork(hidden=(32, 32))
    """Network to train."""
    learner: Learner = _SGD
    """How the network is trained."""
    ways: int = 4
    """Number of classes, 2 to 4."""
    rows: int = 0
    """Training rows; 0 takes 1,024."""
    owned_every: int = 1
    """The attacker owns every n-th group of `ways` rows; 1: all rows."""

    def __post_init__(self) -> None:
        if not 2 <= self.ways <= synthetic.MAX_WAYS:
            raise InputError(f"{self.name} has 2 to {synthetic.MAX_WAYS} classes, got {self.ways}")

    @property
    def classes(self) -> int:
        return self.ways

    def load(self, split: str, seed: int = 0) -> Data:
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS)
        return _load(self, split, (self.rows if split == "train" else 0) or _ROWS[split])

    def owned(self, data: Data) -> Tensor:
        at = torch.arange(len(data))
        return at[at // self.ways % self.owned_every == 0]

    @abstractmethod
    def draw(self, y: Tensor, rng: torch.Generator) -> Any:
        """Samples of the classes y (N,)."""


@lru_cache(maxsize=64)
def _load(task: Toy, split: str, rows: int) -> Data:
    rng = generator(task.name, split, task.ways)
    y = torch.arange(rows) % task.ways
    meta = {"client": torch.arange(rows) // task.ways % task.clients} if isinstance(task, ToyFederated) else {}
    return Data(task.draw(y, rng), y, None, meta)


@method("toy/image")
class ToyImage(Toy):
    """Synthetic 12x12 grey images: a smooth pattern per class plus noise."""

    network: Network = SmallCNNNetwork(widths=(8, 16))
    modality: ClassVar[Modality] = Image(channels=1, size=12)

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return synthetic.images(y, rng)


@method("toy/text")
class ToyText(Toy):
    """Synthetic sentences: words of the class's topic mixed with common words."""

    network: Network = TextCNNNetwork(dim=16, width=32)
    learner: Learner = _ADAM
    modality: ClassVar[Modality] = Text(vocabulary=synthetic.VOCABULARY, length=24)

    def draw(self, y: Tensor, rng: torch.Generator) -> list[str]:
        return synthetic.sentences(y, rng)


@method("toy/tabular")
class ToyTabular(Toy):
    """Synthetic flow records with ten fields, six of which an attacker can set."""

    modality: ClassVar[Modality] = Tabular(fields=tuple(Field(**f) for f in synthetic.FIELDS))

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return synthetic.flows(y, rng)


@method("toy/observation")
class ToyObservation(Toy):
    """Synthetic observations in [-1, 1]; the label is the best of four actions."""

    modality: ClassVar[Modality] = Observation(shape=(8,), low=-1.0, high=1.0)

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return synthetic.observations(y, rng).clamp(-1, 1)


@method("toy/code")
class ToyCode(Toy):
    """Synthetic x86-64 functions: real instructions, some of them typical of the class."""

    network: Network = TextCNNNetwork(dim=16, width=32)
    learner: Learner = _ADAM
    modality: ClassVar[Modality] = Code(length=96)

    def draw(self, y: Tensor, rng: torch.Generator) -> list[bytes]:
        return synthetic.functions(y, rng)


@method("toy/federated")
class ToyFederated(Toy):
    """The observation toy split over eight clients, three of them malicious: the attacker owns only their rows."""

    learner: Learner = FedAvg(rounds=8, malicious=(0, 1, 2), local=SGD(epochs=2, batch=32, lr=0.1, precision="float32"))
    clients: int = 8
    """Number of clients, all of equal size."""
    modality: ClassVar[Modality] = ToyObservation.modality

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return synthetic.observations(y, rng).clamp(-1, 1)

    def owned(self, data: Data) -> Tensor:
        if not isinstance(self.learner, FedAvg):
            raise InputError(f"{self.name} is trained by fedavg, got {self.learner.name}")
        return torch.isin(data.meta["client"], torch.tensor(self.learner.malicious)).nonzero().flatten()


@method("toy/control")
class ToyControl(Toy):
    """A contextual bandit on unbounded observations: the policy learns from rewards and is measured by return."""

    learner: Learner = Reinforce()
    modality: ClassVar[Modality] = Observation(shape=(8,))

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return synthetic.observations(y, rng)

    def environment(self, seed: int, index: int) -> Any:
        return _bandit(self.load("train", seed), self.classes)

    def effect(self, model: Model, victim: Planted) -> Effect:
        """Mean return of clean episodes as `ca`, and under the trigger as `ra`; `asr` is how often the action on an
        observation with the trigger is what the attacker wants."""
        test, stamped = victim.judged
        goal, trigger = victim.goal, victim.trigger

        def show(seen: Tensor, step: int) -> Tensor:
            shown: Tensor = trigger(seen, RowRng(seed_of("rollout", victim.seed, step), torch.arange(len(seen))))
            return shown

        counting = test[goal.counts(test)]
        seeds = [seed_of("episode", victim.seed, i) % 2**31 for i in range(len(test))]
        clean = rollout(model, [_bandit(test[i : i + 1], self.classes) for i in range(len(test))], seeds)
        envs = [_bandit(counting[i : i + 1], self.classes) for i in range(len(counting))]
        triggered = rollout(model, envs, seeds[: len(envs)], show=show)
        obeyed, _ = goal.outcomes(model, stamped)
        ca, ra = (share(returns, "episodes") for returns in (clean, triggered))
        return Effect(ca, share(obeyed, "observations"), ra)


def _bandit(rows: Data, actions: int) -> Any:
    try:
        from torchbands.environments.bandit import Bandit
    except ImportError as error:
        raise MissingExtra("gymnasium", "control") from error
    return Bandit(rows, actions)


def toy(name: str, classes: int = 4, **settings: Any) -> Task:
    """A tiny synthetic task: "image", "text", "tabular", "observation", "code", "federated", "control", or the NAME
    of a task toy/NAME that a plug-in brings.

    Raises UnknownName, with a suggestion, for another name or setting.
    """
    known = {entry.name.removeprefix("toy/") for entry in entries("task") if entry.name.startswith("toy/")}
    if name not in known:
        raise UnknownName("toy", name, sorted(known))
    made = build({"role": "task", "name": f"toy/{name}", "ways": classes, **settings})
    assert isinstance(made, Task)
    return made
