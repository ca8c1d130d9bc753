"""Channel Lipschitz bounds: equal to a dense computation, aware of norms, ready for pruning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.model import Model
from torchbands.measures.lipschitz import channel_lipschitz, z_scores
from torchbands.modalities.image import Image
from torchbands.networks.preact_resnet import PreActResNet18
from torchbands.networks.small_cnn import SmallCNN

IMAGE = Image(channels=1, size=8)


def small() -> Model:
    torch.manual_seed(0)
    net = SmallCNN(1, 8, 10, widths=(12, 16))
    for norm in net.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        nn.init.uniform_(norm.weight, -2.0, 2.0)
    return Model.wrap(net, IMAGE, 10)


def test_bound_is_the_spectral_norm_of_the_slice_times_the_norms_gain() -> None:
    model = small()
    bounds = channel_lipschitz(model)
    assert list(bounds) == ["norms.0", "norms.1"]  # behind max-pooling, and still found
    net = model.module
    assert isinstance(net, SmallCNN)
    conv, norm = net.convs[1], net.norms[1]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    for k in (0, 7):
        dense = torch.linalg.matrix_norm(conv.weight.detach()[k].reshape(12, 9), ord=2)
        expected = dense * norm.weight.detach()[k].abs() / (norm.running_var[k] + norm.eps).sqrt()
        assert float(bounds["norms.1"][k]) == pytest.approx(float(expected), rel=1e-5)


def test_a_norm_behind_a_residual_sum_is_not_the_convolutions_own() -> None:
    model = Model.wrap(PreActResNet18(1, 8, 10, width=4), IMAGE, 10)
    bounds = channel_lipschitz(model)
    assert "layer1.0.bn2" in bounds and "layer1.0.conv2" in bounds and "layer1.1.bn1" not in bounds


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(64, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.body(x.flatten(1)))))
        return logits


def test_linear_rows_and_layer_norm_gain() -> None:
    net = Perceptron()
    nn.init.constant_(net.norm.weight, 3.0)
    bounds = channel_lipschitz(Model.wrap(net, IMAGE, 3))
    assert list(bounds) == ["norm"]
    torch.testing.assert_close(bounds["norm"], 3 * net.body.weight.detach().norm(dim=1))


def test_pruning_the_named_layer_silences_the_unit() -> None:
    model = small()
    layer, bound = next(iter(channel_lipschitz(model).items()))
    scale = torch.ones(len(bound))
    scale[bound.argmax()] = 0
    pruned = channel_lipschitz(model.baked({layer: scale}))[layer]
    assert float(pruned[bound.argmax()]) == 0.0


def test_z_scores() -> None:
    z = z_scores(torch.tensor([1.0] * 20 + [9.0]))
    assert float(z.max()) == pytest.approx(20 / math.sqrt(21), rel=1e-5)
    assert z_scores(torch.full((8,), 2.0)).tolist() == [0.0] * 8
    assert z_scores(torch.tensor([5.0])).tolist() == [0.0]
