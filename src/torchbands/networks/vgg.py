"""VGG with BatchNorm: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import IMAGE_MEAN, IMAGE_STD, Normalize, check_image_shape, initialise_convolutions

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth to the number of convolutions in each of the five stages."""


class VGG(nn.Module):
    """VGG-BN with the single-Linear head that is usual for small images.

    Input `(N, channels, size, size)` in [0, 1]; output logits `(N, classes)`. Stage widths are
    `width * (1, 2, 4, 8, 8)`; pooling rounds up, so sizes that are no multiple of 32 lose no border.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        depth: int = 11,
        width: int = 64,
        mean: float | Sequence[float] = IMAGE_MEAN,
        std: float | Sequence[float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        check_image_shape("VGG", channels, size, classes)
        if depth not in CONVOLUTIONS:
            raise BadSettings(f"VGG depth must be one of {sorted(CONVOLUTIONS)}, got depth={depth}")
        if width < 1:
            raise BadSettings(f"VGG needs width >= 1, got width={width}; the usual width is 64")
        self.normalize = Normalize(channels, mean, std)
        layers: list[nn.Module] = []
        inputs = channels
        for count, factor in zip(CONVOLUTIONS[depth], (1, 2, 4, 8, 8), strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, factor * width, 3, 1, 1, bias=False), nn.BatchNorm2d(factor * width)]
                layers += [nn.ReLU()]
                inputs = factor * width
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(self.normalize(x))
        logits: Tensor = self.classifier(h.mean(dim=(2, 3)))
        return logits
