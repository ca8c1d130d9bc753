"""Blended: a faint pattern over the whole sample."""

from __future__ import annotations

from torchbands.core.attack import Attack
from torchbands.core.method import method
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.blend import Blend


@method("blended", paper="Chen et al., 2017, arXiv:1712.05526")
class Blended(Attack):
    """Blends one fixed noise pattern into some of the training rows and relabels them.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: alpha is .2 as in the public leaderboards (the paper goes from .02 to .2); the pattern
    is a noise row drawn by seed, as the paper's cartoon picture is not free to ship; other modalities mix a noise row
    of their own kind, where the paper has images only.

    Cost: one interpolation per poisoned row.
    """

    alpha: float = 0.2
    """Opacity of the pattern, in training and at test time."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return Blend(alpha=self.alpha, seed=seed, modality=task.modality)
