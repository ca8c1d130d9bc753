"""The registered perceptron for tables and observations."""

from __future__ import annotations

from torch import nn

from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Network
from torchbands.networks.mlp import MLP


@method("mlp")
class MLPNetwork(Network):
    """Linear and ReLU layers on flattened rows, standardised by the modality's ranges."""

    hidden: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        shape = modality.row_shape or ()
        if len(shape) != 1:
            raise NotApplicable(f"{self.name} reads flat rows of numbers, not {modality.name} {shape or ''}".strip())
        return MLP(shape[0], classes, self.hidden, *modality.centre_and_spread())
