"""Shared by the image attacks."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.attack import Attack
from torchbands.core.errors import NotApplicable
from torchbands.core.task import Task


def image_shape(attack: Attack, task: Task) -> tuple[int, int, int]:
    """(C, H, W) of a task's images; NotApplicable where its samples are something else."""
    if not task.modality.has_pixels:
        raise NotApplicable(f"{attack.name} changes images, not {task.modality.name}")
    channels, height, width = task.modality.random(1, torch.Generator().manual_seed(0)).shape[1:]
    return channels, height, width


def draft(attack: Attack, y: Tensor, classes: int, cross: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows of a shuffled batch an attacker who controls training uses, as int64 row numbers.

    Args:
        y: (B,) int64 true labels.
        cross: noise rows as a share of the batch.

    Returns:
        hit: round(rate * B) rows, or fewer where too few are wanted: trigger and the wanted label.
        noise: round(cross * B) other rows: a wrong trigger and the true label.
        cover: with source-specific labels, as many rows of other classes: trigger and the true label (else none).
    """
    eligible = attack.relabel(y, classes) != y
    hit = eligible.nonzero().flatten()[: round(attack.rate * len(y))]
    free = torch.ones_like(eligible)
    free[hit] = False
    cover = hit[:0]
    if attack.labels == "source-specific":
        cover = (free & ~eligible & (y != attack.target)).nonzero().flatten()[: len(hit)]
        free[cover] = False
    noise = free.nonzero().flatten()[: round(cross * len(y))]
    return hit, noise, cover
