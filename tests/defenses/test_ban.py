"""ban: noise makes victims collapse onto their target, stays within its bounds and leaves nothing behind."""

from __future__ import annotations

from statistics import median

import pytest
import torch
from torch import nn

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.defenses.models.ban import BAN, _Noise, decoupling
from torchbands.modalities.image import Image


def test_victims_collapse_onto_their_target(generous: Task, clean: Data) -> None:
    """In most of three; a single small network may resist, or lean to a class of its own."""
    planted, control = build("blended").but(target=2), build("clean")
    assert isinstance(planted, Attack) and isinstance(control, Attack)
    loud, quiet = (
        [BAN().inspect(attack.run(generous, seed).model, clean) for seed in range(3)] for attack in (planted, control)
    )
    assert sum(f.target == 2 and f.evidence["shares"][2] > 0.9 for f in loud) >= 2
    assert median(f.score for f in loud) > median(f.score for f in quiet) + 1
    assert all(f.flagged is None for f in loud + quiet)
    assert loud[0].per_class is not None and loud[0].per_class.shape == (10,)


def test_the_mask_keeps_what_classifies_and_nothing_else() -> None:
    """The first of 30 features classifies both ways, the others say nothing."""
    head = nn.Linear(30, 2)
    with torch.no_grad():
        head.bias.zero_()
        head.weight.zero_()[:, 0] = torch.tensor([20.0, -20.0])
    y = torch.arange(64) % 2
    hidden, mask = torch.ones(64, 30), torch.full((30,), 0.5)
    hidden[:, 0] = 1.0 - 2.0 * y
    mask[0] = 0.9
    kept, rest = torch.tensor([36.0, 4.0]).mul(-1).exp().log1p()
    by_hand = float(kept - rest) + 0.75 * float(mask.sum().log())
    assert float(decoupling(head, mask, hidden, y, 0.75).detach()) == pytest.approx(by_hand, abs=1e-4)


def test_noise_raises_the_loss_within_eps(clean: Data, untouched: Victim) -> None:
    found = BAN(steps=10).inspect(untouched.model, clean)
    first, last = found.evidence["noisy_loss"]
    assert last > 1.5 * first
    noise = _Noise(untouched.model, 0.3, torch.Generator().manual_seed(0))
    for _ in range(3):
        noise.collect(torch.stack([n.sum() for pair in noise.layers.values() for n in pair]).sum())
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
