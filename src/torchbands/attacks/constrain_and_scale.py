"""Constrain-and-scale: trained to stay close to the global model, then scaled up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.model_replacement import Enlarging, ModelReplacement
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, ClientHook, LocalTraining
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.task import Task


@method("constrain-and-scale", paper="Bagdasaryan et al., AISTATS 2020, arXiv:1807.00459")
class ConstrainAndScale(ModelReplacement):
    """Model replacement with an anomaly term in the loss: the distance to the global model.

    The loss is alpha times the cross-entropy and 1 - alpha times the Euclidean distance of the parameters.

    Threat model: that of model-replacement, and the attacker knows that the server looks at distances.

    Deviations from the paper: alpha is 0.7 where the authors' code leaves it at 1, which constrains nothing; the
    distance is the Euclidean one, without the variant by cosines.
    """

    alpha: float = 0.7
    """Weight of the cross-entropy; the distance to the global model gets the rest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise InputError(f"{self.name}: alpha is in (0, 1], got {self.alpha}")

    def acting(self, task: Task, seed: int) -> ClientHook:
        return Constrained(self)


class Constrained(Enlarging):
    def __init__(self, attack: ConstrainAndScale) -> None:
        super().__init__(attack)
        self.alpha = attack.alpha

    def train(self, local: LocalTraining) -> None:
        local.run(None, NearGlobal(self.alpha, local.round.weights))


class NearGlobal(BatchHook):
    """Cross-entropy beside the distance to the (D,) parameters that the server sent."""

    def __init__(self, alpha: float, weights: Tensor) -> None:
        self.alpha, self.weights = alpha, weights

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor:
        learned = F.cross_entropy(model.run(model.encode(augment(x))).float(), y)
        squares, at = self.weights.new_zeros(()), 0
        for p in model.module.parameters():
            squares = squares + (p.float().flatten() - self.weights[at : at + p.numel()]).square().sum()
            at += p.numel()
        # at the global model itself the distance has no gradient
        return self.alpha * learned + (1 - self.alpha) * (squares + 1e-12).sqrt()
