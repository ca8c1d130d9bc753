"""Any task made federated: its training rows are dealt to clients, and a server joins what they learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.effect import Effect, Planted
from torchbands.core.errors import InputError
from torchbands.core.method import Free, method
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Network, Recipe
from torchbands.core.task import Task
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.sgd import SGD
from torchbands.tasks.partition import Partition, by_column, dirichlet, iid
from torchbands.tasks.text import SST2
from torchbands.tasks.vision import CIFAR10, Digits, FashionMNIST
from torchbands.zoo.files import sha256


@method("federated", paper="Hsu, Qi and Brown, 2019, arXiv:1909.06335")
class Federated(Task):
    """Splits a task's training rows over clients; network, clean rows and test rows stay the task's own.

    The attacker owns the rows of the learner's malicious clients. Which clients are malicious says nothing of their
    rows: the partition is drawn without knowing it.
    """

    free: ClassVar[Free] = {"column": "text"}
    around: ClassVar[str] = "base"

    network: Network = dataclasses.field(init=False, compare=False, repr=False)
    learner: Learner = FedAvg(malicious=(0,))
    """The federated learner; its `local` is how a client trains."""
    base: Task = Digits()
    """The underlying task: its name, or name(setting=value)."""
    clients: int = 20
    """Number of clients; with a partition by column, as many as the column has values."""
    partition: Partition = "iid"
    """How rows are dealt to clients: at random (iid), each class by its own Dirichlet draw, or by a column of the
    data, such as a user's id."""
    alpha: float = 0.5
    """Concentration of the Dirichlet partition: the smaller, the more the clients differ."""
    column: str = ""
    """Name of the column (of the data's `meta`) for a partition by column."""

    def __post_init__(self) -> None:
        if isinstance(self.base, Federated):
            raise InputError(f"{self.base.name} is federated already", hint="name the task below it")
        if self.base.learner.takes != "rows":
            raise InputError(f"{self.base.name} is learned in environments: it has no rows to deal to clients")
        if (self.partition == "column") != bool(self.column):
            raise InputError("a partition by column needs the column's name, and no other takes one")
        object.__setattr__(self, "network", self.base.network)

    def but(self, **changes: Any) -> Self:
        """As any method's; another network is given to the task below."""
        if "network" in changes:
            changes["base"] = changes.get("base", self.base).but(network=changes.pop("network"))
        return super().but(**changes)

    @property
    def modality(self) -> Modality:
        return self.base.modality

    @property
    def classes(self) -> int:
        return self.base.classes

    @property
    def class_names(self) -> Sequence[str]:
        return self.base.class_names

    @property
    def recipe(self) -> Recipe:
        return self.base.recipe.but(learner=self.learner)

    def effect(self, model: Model, victim: Planted) -> Effect:
        return self.base.effect(model, victim)

    def absent(self) -> str:
        return self.base.absent()

    def fingerprint(self) -> str:
        start = Path(self.learner.checkpoint) if isinstance(self.learner, FedAvg) and self.learner.checkpoint else None
        started = "" if start is None or not start.is_file() else f" from {sha256(start)}"
        return self.base.fingerprint() + started

    def load(self, split: str, seed: int = 0) -> Data:
        data = self.base.load(split, seed)
        return replace(data, meta={**data.meta, "client": self._deal(data, seed)}) if split == "train" else data

    def _deal(self, data: Data, seed: int) -> Tensor:
        if self.partition == "iid":
            return iid(len(data), self.clients, seed)
        if self.partition == "dirichlet":
            return dirichlet(data.y, self.clients, self.alpha, seed)
        if self.column not in data.meta:
            known = ", ".join(sorted(data.meta)) or "none"
            raise InputError(f"the rows of {self.base.name} have no column {self.column!r}; they have: {known}")
        return by_column(data.meta[self.column])

    def owned(self, data: Data) -> Tensor:
        if "client" not in data.meta:
            return torch.arange(0)
        return torch.isin(data.meta["client"], torch.tensor(self._malicious(), dtype=torch.int64)).nonzero().flatten()

    def _malicious(self) -> tuple[int, ...]:
        if not isinstance(self.learner, FedAvg):
            raise InputError(f"{self.name} is trained by fedavg, got {self.learner.name}")
        return self.learner.malicious


@method("federated/fashion-mnist", paper="Xiao et al., 2017, arXiv:1708.07747")
class FederatedFashionMNIST(Federated):
    """Fashion-MNIST split over 20 clients."""

    base: Task = FashionMNIST()
    learner: Learner = FedAvg(
        rounds=40, malicious=(0,), local=SGD(epochs=1, batch=64, lr=0.05, schedule="constant"), watch=1
    )


@method("federated/cifar10", paper="Krizhevsky, 2009")
class FederatedCIFAR10(Federated):
    """CIFAR-10 split over 20 clients."""

    base: Task = CIFAR10()
    learner: Learner = FedAvg(
        rounds=60,
        malicious=(0,),
        local=SGD(epochs=2, batch=64, lr=0.05, schedule="constant", augment="crop-flip", pad=4),
        watch=1,
    )


@method("federated/sst2", paper="Socher et al., EMNLP 2013")
class FederatedSST2(Federated):
    """SST-2 (sentences of film reviews) split over 20 clients."""

    base: Task = SST2()
    learner: Learner = FedAvg(
        rounds=20,
        malicious=(0,),
        local=SGD(optimizer="adamw", lr=4e-3, epochs=1, batch=32, weight_decay=0.05, schedule="constant"),
        watch=1,
    )
