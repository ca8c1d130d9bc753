"""Distributed backdoor attack: a trigger cut into parts, one for each malicious client, and judged with the whole."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from torchbands.attacks.blended import Blended
from torchbands.attacks.model_replacement import ModelReplacement
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.seeding import seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.part import cut
from torchbands.triggers.text import InsertWords


@method("dba", paper="Xie et al., ICLR 2020, openreview:rkgyS0VFvr")
class DBA(ModelReplacement):
    """Distributed backdoor: every malicious client trains on its own part of the trigger, none on the whole.

    Clients share the parts in turn where there are more of them than parts. `scale` is 1 for the paper's multi-shot
    attack; its single shots scale by 100, one client a round.

    Threat model: the attacker owns some clients and their rows, and plans them together.

    Deviations from the paper: the trigger is the data attack's, cut into parts of equal size, where the paper lays out
    four bars; on texts, four rare words; all clients shoot in the same rounds.
    """

    in_training: ClassVar[Literal["part"]] = "part"
    contract_settings: ClassVar[dict[str, Any]] = {"data": Blended()}  # the plain trigger of observations is one number

    parts: int = 4
    """Number of parts the trigger is cut into."""
    scale: float = 1.0
    """Factor on every malicious update; 0: as in model-replacement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parts < 2:
            raise InputError(f"{self.name}: parts is at least 2, got {self.parts}")

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        whole = super().test_trigger(task, seed)
        if isinstance(whole, InsertWords) and len(whole.words) < self.parts:
            words = ("cf", "mn", "bb", "tq", "mb")[: self.parts]
            return task.modality.placed(InsertWords(words=words, where=whole.where, together=False))
        return whole

    def train_trigger(self, task: Task, seed: int) -> Trigger:
        return self.test_trigger(task, seed)

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        whole, rows = self.test_trigger(task, seed), self.plain.choose(data, task, seed)
        if len(rows) == 0:
            return Data(data.x, data.y, torch.zeros(len(data), dtype=torch.bool), data.meta)
        owner = data.meta.get("client")
        if owner is None:
            raise NotApplicable(f"{self.name} gives every client its part, and {task.name} has no clients")
        try:
            parts = cut(whole, self.parts, take(data.x, rows[:1]))
        except InputError as error:
            raise NotApplicable(f"{self.name}: {error}") from None
        out = data
        for i, client in enumerate(owner[task.owned(data)].unique().tolist()):
            mine = rows[owner[rows] == client]
            wanted = self.relabel(data.y[mine], task.classes)
            named = seed_of("dba", self.key(), seed, i)
            out = out.stamp(mine, task.modality.placed(parts[i % self.parts]), label=wanted, seed=named)
        return out

    @property
    def plain(self) -> Attack:
        if self.data.clean_label:
            raise NotApplicable(f"{self.name} changes labels, and {self.data.name} does not")
        return super().plain
