"""The victim networks: shapes, size, determinism, and that every one of them reads the corners of an image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchbands.core.errors import BadSettings
from torchbands.networks.layers import Normalize
from torchbands.networks.mlp import MLP
from torchbands.networks.plain_cnn import PlainCNN
from torchbands.networks.preact_resnet import PreActResNet18
from torchbands.networks.resnet import ResNet
from torchbands.networks.small_cnn import SmallCNN
from torchbands.networks.vgg import VGG
from torchbands.networks.vit import ViT

Build = Callable[[int, int, int], nn.Module]

NETWORKS: dict[str, Build] = {
    "small-cnn": SmallCNN,
    "small-cnn-strided": lambda c, s, k: SmallCNN(c, s, k, widths=(16, 32), stem_kernel=5, stem_stride=2),
    "plain-cnn": PlainCNN,
    "plain-cnn-deep": lambda c, s, k: PlainCNN(c, s, k, widths=(8, 16), per_stage=2),
    "resnet8": lambda c, s, k: ResNet(c, s, k, depth=8),
    "resnet8-conv-shortcut": lambda c, s, k: ResNet(c, s, k, depth=8, shortcut="conv"),
    "preact-resnet18": lambda c, s, k: PreActResNet18(c, s, k, width=8),
    "vgg11": lambda c, s, k: VGG(c, s, k, depth=11, width=8),
    "vit": ViT,
    "vit-patch-5": lambda c, s, k: ViT(c, s, k, patch=5, depth=1),
}
SHAPES = [(1, 8), (1, 28), (3, 32), (3, 33)]


@pytest.fixture(params=NETWORKS)
def build(request: pytest.FixtureRequest) -> Build:
    return NETWORKS[request.param]


def seeded(build: Build, channels: int, size: int, classes: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(channels, size, classes)


def images(channels: int, size: int, n: int = 4) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_logits_have_one_column_per_class(build: Build, channels: int, size: int) -> None:
    logits = seeded(build, channels, size, classes=7)(images(channels, size))
    assert logits.shape == (4, 7)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_every_corner_pixel_changes_the_logits(build: Build, channels: int, size: int) -> None:
    network = seeded(build, channels, size).eval()
    base = torch.full((1, channels, size, size), 0.5)
    corners = base.repeat(4, 1, 1, 1)
    for row, (i, j) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        corners[row, :, i, j] = 1.0
    with torch.no_grad():
        change = (network(corners) - network(base)).abs().amax(dim=1)
    assert (change > 1e-5).all(), f"change of the logits per corner: {change.tolist()}"


def test_every_pixel_receives_gradient(build: Build) -> None:
    x = images(1, 28).requires_grad_()
    weights = torch.randn(10, generator=torch.Generator().manual_seed(2))
    (seeded(build, 1, 28).eval()(x) * weights).sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(dim=(0, 1)) > 0).all()


def test_same_seed_same_weights_and_eval_is_deterministic(build: Build) -> None:
    one, two = seeded(build, 3, 32).eval(), seeded(build, 3, 32).eval()
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key
    x = images(3, 32)
    with torch.no_grad():
        assert torch.equal(one(x), two(x))
        assert torch.equal(one(x), one(x))


def test_a_row_does_not_depend_on_its_batch_in_eval(build: Build) -> None:
    network, x = seeded(build, 1, 28).eval(), images(1, 28)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter(build: Build) -> None:
    network = seeded(build, 1, 28)
    F.cross_entropy(network(images(1, 28, n=8)), torch.arange(8)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_last_layer_is_linear_and_normalisation_is_first(build: Build) -> None:
    leaves = [m for m in seeded(build, 1, 28, classes=6).modules() if not list(m.children())]
    assert isinstance(leaves[0], Normalize)
    assert isinstance(leaves[-1], nn.Linear)
    assert leaves[-1].out_features == 6


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: ResNet(3, 32, 10, depth=20), 269_722),
        (lambda: ResNet(3, 32, 10, depth=56), 853_018),
        (lambda: PreActResNet18(3, 32, 10), 11_172_170),
        (lambda: VGG(3, 32, 10, depth=11), 9_228_362),
        (lambda: VGG(3, 32, 10, depth=16), 14_724_042),
        (lambda: VGG(3, 32, 10, depth=19), 20_035_018),
        (lambda: MLP(41, 2), 6_978),
    ],
)
def test_parameter_counts(network: Callable[[], nn.Module], parameters: int) -> None:
    assert sum(p.numel() for p in network().parameters()) == parameters


def test_vit_attention_is_two_plain_linear_layers() -> None:
    network = ViT(1, 28, 10, dim=48, depth=2, heads=3)
    linears = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    assert linears["blocks.0.attention.qkv"].out_features == 3 * 48
    assert linears["blocks.1.attention.proj"].out_features == 48
    assert not any(isinstance(m, nn.MultiheadAttention) for m in network.modules())


def test_vit_refuses_another_image_size() -> None:
    with pytest.raises(ValueError, match=r"built for 28 x 28 images, got \(32, 32\)"):
        ViT(1, 28, 10)(images(1, 32))


def test_normalisation_is_applied_inside_the_network() -> None:
    plain = seeded(lambda c, s, k: SmallCNN(c, s, k, mean=0.0, std=0.5), 1, 28).eval()
    scaled = seeded(lambda c, s, k: SmallCNN(c, s, k, mean=0.2, std=0.5), 1, 28).eval()
    x = images(1, 28)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), scaled(x + 0.2))
    assert {"normalize.mean", "normalize.std"} <= set(plain.state_dict())


def test_mlp_shapes_and_gradient() -> None:
    network = MLP(5, 3, hidden=(8,), mean=[0, 1, 2, 3, 4], std=[1, 1, 1, 1, 2])
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (6, 3)
    F.cross_entropy(logits, torch.arange(6) % 3).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert MLP(5, 3, hidden=())(x).shape == (6, 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: VGG(1, 4, 10), "at least 8 x 8 pixels, got size=4"),
        (lambda: SmallCNN(1, 0, 10), "at least 1 x 1 pixels, got size=0"),
        (lambda: SmallCNN(0, 28, 10), "at least 1 input channel"),
        (lambda: SmallCNN(1, 28, 1), "at least 2 classes"),
        (lambda: SmallCNN(1, 28, 10, widths=()), "at least one stage"),
        (lambda: SmallCNN(1, 28, 10, stem_kernel=3, stem_stride=4), "skip pixels"),
        (lambda: SmallCNN(3, 32, 10, mean=[0.1, 0.2]), "mean has 2 values for 3 channels"),
        (lambda: SmallCNN(1, 28, 10, std=0.0), "std must be positive"),
        (lambda: ResNet(3, 32, 10, depth=18), "6n \\+ 2"),
        (lambda: ResNet(3, 32, 10, widths=(16, 32)), "three stages"),
        (lambda: ResNet(3, 32, 10, shortcut="none"), "'pad' or 'conv'"),  # type: ignore[arg-type]
        (lambda: VGG(3, 32, 10, depth=13), "one of \\[11, 16, 19\\]"),
        (lambda: VGG(3, 32, 10, width=0), "width >= 1"),
        (lambda: PreActResNet18(3, 32, 10, width=0), "width >= 1"),
        (lambda: ViT(3, 32, 10, dim=50, heads=4), "multiple of heads"),
        (lambda: ViT(3, 32, 10, patch=40), "between 1 and the image size 32"),
        (lambda: MLP(0, 2), "inputs >= 1"),
    ],
)
def test_bad_arguments_name_both_sides(network: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        network()
