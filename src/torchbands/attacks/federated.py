"""Shared by attacks of federated clients: the data attack that poisons their rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchbands.attacks.badnets import BadNets
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.hook import ClientHook, Hook
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@dataclass(frozen=True, kw_only=True)
class ClientAttack(Attack):
    """Malicious clients poison their rows by a data attack, and act, together, on what they train and send."""

    contract_toys: ClassVar[tuple[str, ...]] = ("federated",)

    rate: float = 0.3125
    """Poisoned rows as a share of those that the attacker owns: 20 of 64, the usual number of the field."""
    data: Attack = BadNets()
    """How the malicious clients' rows are poisoned: any attack on data, whose own rate, target and labels are this
    attack's."""

    @abstractmethod
    def acting(self, task: Task, seed: int) -> ClientHook:
        """What the malicious clients do besides."""

    @property
    def plain(self) -> Attack:
        """The data attack with this attack's goal."""
        if self.data.controls_training or isinstance(self.data, ClientAttack):
            raise NotApplicable(f"{self.name}: {self.data.name} is not an attack on data alone")
        return self.data.but(rate=self.rate, target=self.target, labels=self.labels, source=self.source)

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return self.plain.test_trigger(task, seed)

    def train_trigger(self, task: Task, seed: int) -> Trigger:
        return self.plain.train_trigger(task, seed)

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        return self.plain.poison(data, task, seed)

    def writable(self, data: Data, task: Task, seed: int) -> Tensor:
        return self.plain.writable(data, task, seed)

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (*self.plain.hooks(task, seed), self.acting(task, seed))

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        return self.plain.learned([h for h in hooks if not isinstance(h, ClientHook)], task, seed)


@dataclass(frozen=True, kw_only=True)
class ByzantineAttack(Attack):
    """Malicious clients send what spoils the model. There is no backdoor: the trigger is that of a control."""

    contract_toys: ClassVar[tuple[str, ...]] = ("federated",)
    backdoor: ClassVar[bool] = False

    rate: float = 0.0
    """Nothing is poisoned."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        return Data(data.x, data.y, torch.zeros(len(data), dtype=torch.bool), data.meta)
