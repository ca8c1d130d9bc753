"""PreActResNet-18: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import IMAGE_MEAN, IMAGE_STD, Normalize, check_image_shape, initialise_convolutions


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; a projection, if any, sees the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        projected = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn1(x))
        skip: Tensor = x if self.shortcut is None else self.shortcut(a)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return skip + residual


class PreActResNet18(nn.Module):
    """Four stages of two pre-activation blocks, `width` to `8 * width` channels, with a 3x3 stem for small images.

    Input `(N, channels, size, size)` in [0, 1]; output logits `(N, classes)`. `width=64` is the 11.2 M parameter
    network of the backdoor literature. As in the paper, and unlike some public ports, BatchNorm and ReLU also
    follow the last block.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        width: int = 64,
        mean: float | Sequence[float] = IMAGE_MEAN,
        std: float | Sequence[float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        check_image_shape("PreActResNet18", channels, size, classes)
        if width < 1:
            raise BadSettings(f"PreActResNet18 needs width >= 1, got width={width}; the usual width is 64")
        self.normalize = Normalize(channels, mean, std)
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.norm = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.normalize(x))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        h = F.relu(self.norm(h))
        logits: Tensor = self.linear(h.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(PreActBlock(inputs, outputs, stride), PreActBlock(outputs, outputs, 1))
