"""Victim architectures: an nn.Module per file, and here the registered recipes that build them."""

from __future__ import annotations

from typing import Literal

from torch import nn

from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.recipe import Network


def _shape(network: Network, modality: Modality) -> tuple[int, int]:
    shape = modality.row_shape
    if not modality.has_pixels or shape is None or len(shape) != 3 or shape[1] != shape[2]:
        raise NotApplicable(f"{network.name} reads square images, not {modality.name}")
    return shape[0], shape[1]


@method("small-cnn")
class SmallCNNNetwork(Network):
    """Convolution, BatchNorm, ReLU, max-pooling; one linear head."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of each stage."""
    grid: int = 4
    """The last feature maps are pooled to grid x grid cells before the head."""
    stem_kernel: int = 3
    """Kernel size of the first convolution."""
    stem_stride: int = 1
    """Stride of the first convolution; 2 halves the cost of all later layers."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        from .small_cnn import SmallCNN

        return SmallCNN(
            *_shape(self, modality),
            classes,
            widths=self.widths,
            grid=self.grid,
            stem_kernel=self.stem_kernel,
            stem_stride=self.stem_stride,
        )


@method("plain-cnn")
class PlainCNNNetwork(Network):
    """Convolutions with bias, ReLU and max-pooling, without normalisation layers; one linear head."""

    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each stage."""
    per_stage: int = 1
    """Convolutions in each stage; 2 as in VGG."""
    grid: int = 4
    """The last feature maps are pooled to grid x grid cells before the head."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        from .plain_cnn import PlainCNN

        return PlainCNN(*_shape(self, modality), classes, widths=self.widths, per_stage=self.per_stage, grid=self.grid)


@method("resnet", paper="He et al., CVPR 2016, arXiv:1512.03385")
class ResNetNetwork(Network):
    """Residual network of the CIFAR kind."""

    depth: int = 20
    """Number of layers, 6n + 2."""
    widths: tuple[int, int, int] = (16, 32, 64)
    """Channels of the three stages."""
    shortcut: Literal["conv", "pad"] = "conv"
    """Shortcut where the width changes: a 1x1 convolution, or zero padding (option A of the paper)."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        from .resnet import ResNet

        return ResNet(*_shape(self, modality), classes, depth=self.depth, widths=self.widths, shortcut=self.shortcut)


@method("preact-resnet18", paper="He et al., ECCV 2016, arXiv:1603.05027")
class PreActResNet18Network(Network):
    """Pre-activation ResNet-18, the network of the public backdoor benchmarks."""

    width: int = 64
    """Channels of the first stage."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        from .preact_resnet import PreActResNet18

        return PreActResNet18(*_shape(self, modality), classes, width=self.width)


@method("vgg-bn", paper="Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556")
class VGGNetwork(Network):
    """VGG with BatchNorm and one linear head."""

    depth: int = 11
    """Number of layers: 11, 16 or 19."""
    width: int = 64
    """Channels of the first stage."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        from .vgg import VGG

        return VGG(*_shape(self, modality), classes, depth=self.depth, width=self.width)


@method("vit", paper="Dosovitskiy et al., ICLR 2021, arXiv:2010.11929")
class ViTNetwork(Network):
    """Small vision transformer: LayerNorm and attention instead of convolution and BatchNorm."""

    patch: int = 4
    """Side of a patch in pixels."""
    dim: int = 64
    """Embedding dimension."""
    depth: int = 4
    """Number of transformer blocks."""
    heads: int = 4
    """Number of attention heads."""

    def build(self, modality: Modality, classes: int) -> nn.Module:
        from .vit import ViT

        return ViT(*_shape(self, modality), classes, patch=self.patch, dim=self.dim, depth=self.depth, heads=self.heads)
