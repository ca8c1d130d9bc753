"""Layers that every victim network shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchbands.core.errors import BadSettings

IMAGE_MEAN, IMAGE_STD = 0.5, 0.25


class Normalize(nn.Module):
    """Standardise `(N, C, ...)` inputs inside the model: `(x - mean) / std`, one value per channel or one for all.

    Keeping it in the model leaves triggers, bounds and distances in raw units, and lets it travel with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int, mean: float | Sequence[float], std: float | Sequence[float], ndim: int = 4
    ) -> None:
        super().__init__()
        self.register_buffer("mean", _per_channel("mean", mean, channels, ndim))
        self.register_buffer("std", _per_channel("std", std, channels, ndim))
        if not bool((self.std > 0).all()):
            raise BadSettings(f"std must be positive in every channel, got {std}; give constant channels a std of 1")

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def _per_channel(name: str, value: float | Sequence[float], channels: int, ndim: int) -> Tensor:
    values = [float(value)] * channels if isinstance(value, (int, float)) else [float(v) for v in value]
    if len(values) != channels:
        raise BadSettings(
            f"{name} has {len(values)} values for {channels} channels; pass {channels} values or one number"
        )
    return torch.tensor(values).view(1, channels, *[1] * (ndim - 2))


def check_image_shape(network: str, channels: int, size: int, classes: int, smallest: int = 8) -> None:
    """Refuse shapes that the network cannot serve, before any layer is built.

    Raises:
        BadSettings: naming what was given and what is expected.
    """
    if channels < 1:
        raise BadSettings(f"{network} needs at least 1 input channel, got channels={channels}")
    if size < smallest:
        raise BadSettings(f"{network} needs images of at least {smallest} x {smallest} pixels, got size={size}")
    if classes < 2:
        raise BadSettings(f"{network} needs at least 2 classes, got classes={classes}")


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution by He et al., "Delving Deep into Rectifiers", ICCV 2015 (normal, fan out)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
