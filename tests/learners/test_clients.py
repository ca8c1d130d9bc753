"""Clients of a round: hooks on batches act inside malicious clients, on each of their batches, and nowhere else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchbands.core.hook import BatchHook
from torchbands.core.model import Model
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.sgd import SGD
from torchbands.testing import toy


class Counting(BatchHook):
    """Notes how large the batches are that it is shown, and how often a step was made."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.steps = 0

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        self.rows.append(len(y))
        return x, y

    def after_step(self, model: Model) -> None:
        self.steps += 1


def test_hooks_on_batches_act_in_malicious_clients_alone() -> None:
    task = toy("federated", rows=512)  # eight clients with 64 rows each
    local = SGD(epochs=1, batch=32, lr=0.1, schedule="constant", precision="float32")
    for malicious, expected in (((), []), ((2,), [32] * 2 * 3), ((0, 1), [32] * 4 * 3)):
        hook = Counting()
        FedAvg(rounds=3, malicious=malicious, local=local).fit(task.fresh(0), task.load("train"), hooks=[hook], seed=0)
        assert hook.rows == expected and hook.steps == len(expected)
