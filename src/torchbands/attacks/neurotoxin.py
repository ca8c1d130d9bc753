"""Neurotoxin: trains the backdoor into parameters that honest clients hardly change, so that it persists."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.attacks.federated import ClientAttack
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, ClientHook, LocalTraining
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.learners.clients import marked
from torchbands.learners.vectors import buffers_of, load_buffers, load_weights, weights_of


@method("neurotoxin", paper="Zhang et al., ICML 2022, arXiv:2206.10341")
class Neurotoxin(ClientAttack):
    """Projects malicious updates away from the coordinates that the last honest step changed most.

    Threat model: the attacker owns some clients, their rows and what they train; it sees the global model whenever one
    of them takes part.

    Deviations from the paper: the step before the first that is seen is what honest training on the attacker's own
    unpoisoned rows would be; the server's norm clipping of the paper's experiments is an aggregator of its own.

    Cost: one projection a step, and one honest training in the first round.
    """

    keep: float = 0.95
    """Fraction of the coordinates that may change: those that the honest step changed least."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise InputError(f"{self.name}: keep is in (0, 1], got {self.keep}")

    def acting(self, task: Task, seed: int) -> ClientHook:
        return Quiet(self.keep)


class Quiet(ClientHook):
    """Remembers the global model, and trains only where it changed little since."""

    def __init__(self, keep: float) -> None:
        self.keep, self.seen, self.before, self.step = keep, -1, torch.zeros(0), torch.zeros(0)

    def train(self, local: LocalTraining) -> None:
        now = local.round
        if now.number != self.seen:
            self.step = now.weights - self.before if len(self.before) else honest_step(local)
            self.seen, self.before = now.number, now.weights
        local.run(None, Frozen(heavy(self.step, 1 - self.keep), now.weights))


def honest_step(local: LocalTraining) -> Tensor:
    """(D,) what an honest client would change, learned from the rows without poison; the model is left as it was."""
    weights, buffers = weights_of(local.model), buffers_of(local.model)
    rows = local.data[~marked(local.data)]
    if len(rows):
        local.run(rows)
    step = weights_of(local.model) - weights
    load_weights(local.model, weights)
    load_buffers(local.model, buffers)
    return step


def heavy(step: Tensor, share: float) -> Tensor:
    """(D,) bool: that share of the coordinates that changed most."""
    out = torch.zeros(len(step), dtype=torch.bool, device=step.device)
    out[step.abs().topk(round(share * len(step))).indices] = True
    return out


class Frozen(BatchHook):
    """After every step, some coordinates are what the server sent.

    Args:
        fixed: (D,) bool. weights: (D,) parameters.
    """

    def __init__(self, fixed: Tensor, weights: Tensor) -> None:
        self.fixed, self.weights = fixed, weights

    def after_step(self, model: Model) -> None:
        load_weights(model, torch.where(self.fixed, self.weights, weights_of(model)))
