"""A model's parameters, and its running statistics, as one vector each: what clients and servers exchange."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchbands.core.model import Model


def weights_of(model: Model) -> Tensor:
    """(D,) float32: every parameter of a model, in the module's order; running statistics are none."""
    return _flat(list(model.module.parameters()))


def load_weights(model: Model, weights: Tensor) -> None:
    """Write a (D,) vector from `weights_of` into a model."""
    _write(list(model.module.parameters()), weights)


def buffers_of(model: Model) -> Tensor:
    """(B,) float32: every running statistic of a model, in the module's order."""
    return _flat(_buffers(model))


def load_buffers(model: Model, buffers: Tensor) -> None:
    """Write a (B,) vector from `buffers_of` into a model."""
    _write(_buffers(model), buffers)


def _buffers(model: Model) -> list[Tensor]:
    return [b for b in model.module.buffers() if b.is_floating_point()]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().float().flatten() for t in tensors]) if tensors else torch.zeros(0)


def _write(tensors: Sequence[Tensor], values: Tensor) -> None:
    with torch.no_grad():
        for tensor, part in zip(tensors, values.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
