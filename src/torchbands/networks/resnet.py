"""ResNet for small images: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import IMAGE_MEAN, IMAGE_STD, Normalize, check_image_shape, initialise_convolutions

Shortcut = Literal["pad", "conv"]


class PadShortcut(nn.Module):
    """Option A of the paper: subsample the map, and fill the new channels with zeros. No parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around an identity, padded (option A) or projected (option B) shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                PadShortcut(inputs, outputs, stride)
                if shortcut == "pad"
                else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet(nn.Module):
    """The `6n + 2` layer ResNet with three stages: depth 8, 14, 20, 32, 44, 56, 110.

    Input `(N, channels, size, size)` in [0, 1]; output logits `(N, classes)`. `widths` are the three stage widths.
    Layer names follow the common public checkpoints (`conv1`, `bn1`, `layer1.0.conv1`, ..., `linear`),
    which use `shortcut="pad"`.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        depth: int = 20,
        widths: Sequence[int] = (16, 32, 64),
        shortcut: Shortcut = "pad",
        mean: float | Sequence[float] = IMAGE_MEAN,
        std: float | Sequence[float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        check_image_shape("ResNet", channels, size, classes)
        if depth < 8 or (depth - 2) % 6:
            raise BadSettings(f"ResNet depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110), got depth={depth}")
        if len(widths) != 3 or list(widths) != sorted(widths):
            raise BadSettings(f"ResNet has three stages of growing width, got widths={tuple(widths)}; try (16, 32, 64)")
        if shortcut not in ("pad", "conv"):
            raise BadSettings(f"shortcut must be 'pad' or 'conv', got {shortcut!r}")
        blocks = (depth - 2) // 6
        self.normalize = Normalize(channels, mean, std)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], 1, blocks, shortcut)
        self.layer2 = _stage(widths[0], widths[1], 2, blocks, shortcut)
        self.layer3 = _stage(widths[1], widths[2], 2, blocks, shortcut)
        self.linear = nn.Linear(widths[2], classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(self.normalize(x))))
        h = self.layer3(self.layer2(self.layer1(h)))
        logits: Tensor = self.linear(h.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, stride: int, blocks: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))
