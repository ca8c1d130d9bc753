"""The registered perceptron for tables and observations."""

from __future__ import annotations

import torch
from torch import nn

from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Network
from torchbands.networks.mlp import MLP


@method("mlp")
class MLPNetwork(Network):
    """Linear and ReLU layers on flat rows, standardised by the modality's ranges."""

    hidden: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        columns = getattr(modality, "columns", None)
        if columns is not None:
            low, high = columns()[:2]
            span = (high - low) / 4
            std = torch.where(span > 0, span, 1.0).tolist()  # a column that never changes has no span
            return MLP(len(low), classes, self.hidden, ((low + high) / 2).tolist(), std)
        shape: tuple[int, ...] = getattr(modality, "shape", ())
        if len(shape) != 1:
            raise NotApplicable(f"{self.name} reads flat rows of numbers, not {modality.name} {shape or ''}".strip())
        low, high = modality.bounds or (-2.0, 2.0)
        return MLP(shape[0], classes, self.hidden, (low + high) / 2, (high - low) / 4)
