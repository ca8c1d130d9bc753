"""A multi-layer perceptron for tables and observations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import Normalize


class MLP(nn.Module):
    """Standardisation, Linear and ReLU for each hidden width, one Linear head.

    Input float `(N, inputs)`; output logits `(N, classes)`. `mean` and `std` are one number or one per column.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: Sequence[int] = (64, 64),
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        if inputs < 1 or classes < 2:
            raise BadSettings(f"MLP needs inputs >= 1 and classes >= 2, got inputs={inputs} and classes={classes}")
        self.normalize = Normalize(inputs, mean, std, ndim=2)
        layers: list[nn.Module] = []
        width = inputs
        for outputs in hidden:
            layers += [nn.Linear(width, outputs), nn.ReLU()]
            width = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.normalize(x)))
        return logits
