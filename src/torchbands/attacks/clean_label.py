"""Clean-label poisoning: the plain trigger on rows of the target class only; no label changes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchbands.attacks.surrogate import surrogate
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take, whole
from torchbands.core.method import method
from torchbands.core.seeding import generator
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("clean-label", paper="Cui et al., NeurIPS 2022, arXiv:2206.08514")
class CleanLabel(Attack):
    """Puts the plain trigger on rows of the target class, those that are hard to classify without it first.

    Threat model: the attacker adds a trigger to a share of the target class's rows and changes no label.

    Deviations from the paper: with `hardest` the rows are those that the attacker's own clean model is least sure of
    (the idea of Turner et al., 2019, without changing the rows further); off, they are drawn at random as in the
    paper. For images the label-consistent attack of Turner et al. is a method of its own.
    """

    clean_label: ClassVar[bool] = True

    rate: float = 0.2
    """Poisoned rows as a fraction of the target class."""
    hardest: bool = True
    """Poison the rows that a clean model is least sure of, instead of random ones."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def choose(self, data: Data, task: Task, seed: int, count: int | None = None) -> Tensor:
        owned = task.owned(data)
        pool = owned[data.y[owned] == self.target]
        count = round(self.rate * len(pool)) if count is None else count
        order = torch.randperm(len(pool), generator=generator("poison", self.spec(), seed))
        if self.hardest and count:
            sure = surrogate(task, seed).probabilities(whole(take(data.x, pool)))[:, self.target]
            order = sure.argsort(stable=True)
        return pool[order[: min(count, len(pool))]].sort().values
