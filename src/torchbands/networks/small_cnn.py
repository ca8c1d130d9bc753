"""The small convolutional victim: a few CPU seconds per training."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import IMAGE_MEAN, IMAGE_STD, Normalize, check_image_shape, initialise_convolutions


class SmallCNN(nn.Module):
    """Stages of 3x3 convolution, 2x2 max-pooling, BatchNorm and ReLU, then average pooling to a grid and one Linear.

    Input `(N, channels, size, size)` in [0, 1]; output logits `(N, classes)`.
    Convolutions are padded and pooling rounds up, so every border pixel is read: a network that drops the
    last rows cannot see a corner trigger. Pooling before BatchNorm costs a quarter of pooling after it.
    The head reads a `grid x grid` map (smaller where the last stage is smaller), so it knows roughly where things are.
    `stem_stride=2` halves the resolution in the first convolution.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        widths: Sequence[int] = (16, 32, 64),
        grid: int = 4,
        stem_kernel: int = 3,
        stem_stride: int = 1,
        mean: float | Sequence[float] = IMAGE_MEAN,
        std: float | Sequence[float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        check_image_shape("SmallCNN", channels, size, classes, smallest=1)
        if not widths:
            raise BadSettings("SmallCNN needs at least one stage, got widths=(); try widths=(16, 32, 64)")
        if grid < 1:
            raise BadSettings(f"SmallCNN needs grid >= 1, got grid={grid}; 1 is global average pooling")
        if stem_kernel % 2 == 0 or stem_stride > stem_kernel:
            raise BadSettings(
                f"stem_kernel must be odd and at least stem_stride, got stem_kernel={stem_kernel}, "
                f"stem_stride={stem_stride}; a larger stride would skip pixels"
            )
        self.normalize = Normalize(channels, mean, std)
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        inputs, last = channels, -(-size // stem_stride)
        for stage, width in enumerate(widths):
            kernel, stride = (stem_kernel, stem_stride) if stage == 0 else (3, 1)
            self.convs.append(nn.Conv2d(inputs, width, kernel, stride, kernel // 2, bias=False))
            self.norms.append(nn.BatchNorm2d(width))
            inputs, last = width, -(-last // 2)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.grid = min(grid, last)
        self.head = nn.Linear(inputs * self.grid**2, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.normalize(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(self.pool(conv(h))))
        if h.shape[-1] != self.grid:
            h = F.adaptive_avg_pool2d(h, self.grid)
        logits: Tensor = self.head(h.flatten(1))
        return logits
