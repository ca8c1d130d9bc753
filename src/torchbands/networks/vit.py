"""A small Vision Transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import IMAGE_MEAN, IMAGE_STD, Normalize, check_image_shape


class Attention(nn.Module):
    """Multi-head self-attention on `(N, T, dim)` whose parameters are two plain Linear layers, `qkv` and `proj`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, dim))
        return out


class EncoderBlock(nn.Module):
    """Pre-norm encoder block: attention, then a two-layer GELU perceptron, each inside a residual."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, mlp_dim)
        self.fc2 = nn.Linear(mlp_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class ViT(nn.Module):
    """Patch embedding, learnt positions, `depth` encoder blocks, LayerNorm, mean over tokens, one Linear.

    Input `(N, channels, size, size)` in [0, 1]; output logits `(N, classes)`. A size that `patch` does not divide is
    padded at the right and bottom, so no border pixel is lost. Tokens are averaged rather than read from a class
    token, which trains better at this scale (Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        patch: int = 4,
        dim: int = 96,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        mean: float | Sequence[float] = IMAGE_MEAN,
        std: float | Sequence[float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        check_image_shape("ViT", channels, size, classes)
        if not 1 <= patch <= size:
            raise BadSettings(f"patch must lie between 1 and the image size {size}, got patch={patch}")
        if dim % heads:
            raise BadSettings(f"dim must be a multiple of heads, got dim={dim} and heads={heads}")
        self.size = size
        self.pad = -size % patch
        self.normalize = Normalize(channels, mean, std)
        self.patches = nn.Conv2d(channels, dim, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, ((size + self.pad) // patch) ** 2, dim))
        self.blocks = nn.Sequential(*(EncoderBlock(dim, heads, round(mlp_ratio * dim)) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            given = tuple(x.shape[-2:])
            raise BadSettings(
                f"this ViT was built for {self.size} x {self.size} images, got {given}; build ViT(size=...)"
            )
        h = F.pad(self.normalize(x), (0, self.pad, 0, self.pad))
        h = self.patches(h).flatten(2).transpose(1, 2) + self.positions
        h = self.norm(self.blocks(h))
        logits: Tensor = self.head(h.mean(dim=1))
        return logits
