"""ban: noise makes victims collapse onto their target, stays within its bounds and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.defenses.models.ban import BAN, _Noise
from torchbands.modalities.image import Image


@pytest.fixture(scope="module")
def blended(generous: Task) -> Victim:
    attack = build("blended").but(rate=0.05, target=2)
    assert isinstance(attack, Attack)
    return attack.run(generous, 0)


def test_victims_collapse_onto_their_target(
    clean: Data, blended: Victim, backdoored: Victim, untouched: Victim
) -> None:
    quiet = BAN().inspect(untouched.model, clean)
    loud = BAN().inspect(blended.model, clean)
    patch = BAN().inspect(backdoored.model, clean)
    assert loud.target == 2 and loud.score > quiet.score + 1 and loud.evidence["shares"][2] > 0.9
    assert patch.target == 0 and patch.score > quiet.score
    assert quiet.flagged is None and loud.flagged is None
    assert loud.per_class is not None and loud.per_class.shape == (10,)


def test_noise_raises_the_loss_within_eps(clean: Data, untouched: Victim) -> None:
    found = BAN(steps=10).inspect(untouched.model, clean)
    first, last = found.evidence["noisy_loss"]
    assert last > first
    noise = _Noise(untouched.model, 0.3, torch.Generator().manual_seed(0))
    loss = sum(n.sum() for pair in noise.layers.values() for n in pair)
    assert isinstance(loss, Tensor)
    for _ in range(3):
        noise.collect(loss)
        noise.step(0.25)
    assert all(float(n.detach().max()) == pytest.approx(0.3) for pair in noise.layers.values() for n in pair)


def test_noise_is_on_weights_and_biases(clean: Data, untouched: Victim) -> None:
    noise = _Noise(untouched.model, 0.3, torch.Generator().manual_seed(0))
    by_hand = untouched.model.clone()
    with torch.no_grad():
        for name, (weight, bias) in noise.layers.items():
            layer = by_hand.module.get_submodule(name)
            assert isinstance(layer, nn.BatchNorm2d)
            layer.weight.mul_(1 + weight)
            layer.bias.mul_(1 + bias)
    with noise.written():
        noisy = untouched.model.at_precision("float32").logits(clean.x[:32])
    wanted = by_hand.at_precision("float32").logits(clean.x[:32])
    torch.testing.assert_close(noisy, wanted, rtol=1e-3, atol=1e-3)


def test_without_norms_and_with_two_classes(clean: Data) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    two = Data(clean.x, (clean.y > 4).long())
    found = BAN(steps=5, mask_steps=20).inspect(Model.wrap(net, Image(channels=1, size=8), 2), two)
    assert found.evidence["layers"] == ["1"] and found.per_class is not None
    assert bool(torch.isfinite(found.per_class).all()) and found.target in (0, 1)


def test_declines_without_a_linear_head(clean: Data) -> None:
    net = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NotApplicable, match="head"):
        BAN().inspect(Model.wrap(net, Image(channels=1, size=8), 10), clean)
