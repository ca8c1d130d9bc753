"""Where the final layer's parameters lie in a flat vector of all parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchbands.core.model import Model


@dataclass(frozen=True)
class Head:
    """Positions in a (D,) vector of parameters: (classes, inputs) of the weight, and (classes,) of the bias or none."""

    weight: Tensor
    bias: Tensor | None

    def all(self) -> Tensor:
        """Every position of the layer."""
        flat = self.weight.flatten()
        return flat if self.bias is None else torch.cat([flat, self.bias])


def head_of(model: Model) -> Head | None:
    """The linear layer whose output is the logits; None where the network ends in another."""
    path, at = model.head, 0
    found: dict[str, Tensor] = {}
    for name, parameter in model.module.named_parameters():
        found[name] = torch.arange(at, at + parameter.numel()).view(parameter.shape)
        at += parameter.numel()
    weight = None if path is None else found.get(f"{path}.weight")
    return None if weight is None else Head(weight, found.get(f"{path}.bias"))
