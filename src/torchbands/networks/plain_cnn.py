"""A convolutional victim without any normalisation layer: what needs BatchNorm does not apply to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import IMAGE_MEAN, IMAGE_STD, Normalize, check_image_shape


class PlainCNN(nn.Module):
    """Stages of 3x3 convolution with bias, 2x2 max-pooling and ReLU, then average pooling to a grid and one Linear.

    Input `(N, channels, size, size)` in [0, 1]; output logits `(N, classes)`. Convolutions are padded and pooling
    rounds up, so every border pixel is read. Convolutions start by He et al. with zero biases; the head starts small
    (`1 / features`, zero bias), so that the first logits are near zero and plain SGD takes large steps at once.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        widths: Sequence[int] = (32, 64, 128),
        per_stage: int = 1,
        grid: int = 4,
        mean: float | Sequence[float] = IMAGE_MEAN,
        std: float | Sequence[float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        check_image_shape("PlainCNN", channels, size, classes)
        if not widths:
            raise BadSettings("PlainCNN needs at least one stage, got widths=(); try widths=(32, 64, 128)")
        if grid < 1 or per_stage < 1:
            raise BadSettings(f"PlainCNN needs grid >= 1 and per_stage >= 1, got grid={grid}, per_stage={per_stage}")
        self.normalize = Normalize(channels, mean, std)
        self.stages = nn.ModuleList()
        inputs, last = channels, size
        for width in widths:
            convs = nn.ModuleList()
            for _ in range(per_stage):
                convs.append(nn.Conv2d(inputs, width, 3, 1, 1))
                inputs = width
            self.stages.append(convs)
            last = -(-last // 2)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.grid = min(grid, last)
        self.head = nn.Linear(inputs * self.grid**2, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.head.weight, std=1 / self.head.in_features)

    def forward(self, x: Tensor) -> Tensor:
        h = self.normalize(x)
        for convs in self.stages:
            assert isinstance(convs, nn.ModuleList)
            for conv in convs[:-1]:
                h = F.relu(conv(h))
            h = F.relu(self.pool(convs[-1](h)))
        if h.shape[-1] != self.grid:
            h = F.adaptive_avg_pool2d(h, self.grid)
        logits: Tensor = self.head(h.flatten(1))
        return logits
