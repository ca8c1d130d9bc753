"""Surrogate models of the attacker, and perturbations optimised against them."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data, take
from torchbands.core.model import Model
from torchbands.core.seeding import seed_of
from torchbands.core.task import Task


@lru_cache(maxsize=4)
def surrogate(task: Task, seed: int) -> Model:
    """An ordinary model of the task's recipe and another seed, kept in the process for the last few (task, seed)."""
    return task.train(task.load("train", seed), seed=seed_of("surrogate", seed))


def universal(
    model: Model,
    data: Data,
    label: int,
    *,
    eps: float,
    steps: int,
    step: float,
    batch: int,
    rng: torch.Generator,
) -> Tensor:
    """One perturbation for all rows that moves them towards a label: signed projected gradient descent over batches.

    Args:
        model: where gradients come from. data: (N,) images in [0, 1], drawn with replacement.
        label: every row's wanted label. eps: L-infinity radius. steps: number of steps, each of size `step`.
        batch: rows per step.

    Returns:
        (C, H, W) float32 on the CPU, within eps.
    """
    delta = torch.zeros(take(data.x, torch.arange(1)).shape[1:], device=model.device)
    for _ in range(steps):
        rows = torch.randint(len(data), (min(batch, len(data)),), generator=rng)
        delta, slope = delta.detach().requires_grad_(), torch.zeros_like(delta)
        for part in rows.split(model.gradient_chunk):
            x = take(data.x, part).to(model.device)
            wanted = torch.full((len(x),), label, device=model.device)
            with torch.enable_grad():
                logits = model.logits_at(model.embed((x + delta).clamp(0, 1)))
                loss = F.cross_entropy(logits, wanted, reduction="sum") / len(rows)
                slope += torch.autograd.grad(loss, delta)[0]
        delta = (delta.detach() - step * slope.sign()).clamp(-eps, eps)
    return delta.detach().cpu()
