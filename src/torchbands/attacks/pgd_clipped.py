"""Projected gradient descent: the malicious model stays in a ball around the global one, so that no norm tells it."""

from __future__ import annotations

from torch import Tensor

from torchbands.attacks.model_replacement import Enlarging, ModelReplacement
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, ClientHook, LocalTraining
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.learners.vectors import load_weights, weights_of


@method("pgd-clipped", paper="Wang et al., NeurIPS 2020, arXiv:2007.05084")
class PGDClipped(ModelReplacement):
    """Projects the parameters onto a ball around the global model after every local step (PGD).

    Threat model: the attacker owns some clients, their rows and what they train, and knows which norm is suspicious.

    Deviations from the paper: the radius is the same in every round, where the paper shrinks it in some experiments;
    any data attack in place of the paper's edge cases; `scale` is 1, the attack without model replacement.
    """

    radius: float = 2.0
    """Radius of the ball, in the Euclidean norm of all parameters."""
    scale: float = 1.0
    """Factor on the update after projection; 0: as in model-replacement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius <= 0:
            raise InputError(f"{self.name}: radius is above 0, got {self.radius}")

    def acting(self, task: Task, seed: int) -> ClientHook:
        return Bounded(self)


class Bounded(Enlarging):
    def __init__(self, attack: PGDClipped) -> None:
        super().__init__(attack)
        self.radius = attack.radius

    def train(self, local: LocalTraining) -> None:
        local.run(None, Ball(local.round.weights, self.radius))


class Ball(BatchHook):
    """Keeps the parameters within a radius of (D,) others."""

    def __init__(self, centre: Tensor, radius: float) -> None:
        self.centre, self.radius = centre, radius

    def after_step(self, model: Model) -> None:
        gap = weights_of(model) - self.centre
        if (norm := float(gap.norm())) > self.radius:
            load_weights(model, self.centre + gap * (self.radius / norm))
