"""FT-SAM: the gradient is taken at the worst nearby weights, and the weights come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.defenses.repair.fine_tune import FineTune
from torchbands.defenses.repair.ft_sam import FTSAM, frozen_statistics
from torchbands.modalities.observation import Observation


def test_no_learning_leaves_the_weights_where_they_were(backdoored: Victim, clean: Data) -> None:
    repaired = FTSAM(lr=0.0, epochs=2).repair(backdoored.model, clean)
    for (name, a), b in zip(backdoored.model.module.named_parameters(), repaired.module.parameters()):
        assert torch.allclose(a, b, atol=1e-5), name


def test_the_gradient_is_taken_uphill() -> None:
    """One step of one batch by hand: the slope is that at w + rho T (T g) / |T g|, T the sizes of the weights."""
    rng = torch.Generator().manual_seed(0)
    x, y, w = torch.randn(8, 3, generator=rng), torch.arange(8) % 2, torch.randn(2, 3, generator=rng)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2, bias=False))
    network.load_state_dict({"1.weight": w})
    settings = FTSAM(rho=0.5, lr=0.1, epochs=1, batch=8, label_smoothing=0.0)
    repaired = settings.repair(Model(network, Observation(shape=(3,)), 2), Data(x, y))

    def slope(at: torch.Tensor) -> torch.Tensor:
        at = at.clone().requires_grad_()
        return torch.autograd.grad(torch.nn.functional.cross_entropy(x @ at.T, y), at)[0]

    size = w.abs() + settings.eta
    scaled = size * slope(w)
    expected = w - 0.1 * (slope(w + 0.5 * size * scaled / scaled.norm()) + 5e-4 * w)
    assert torch.allclose(next(repaired.module.parameters()).detach(), expected, atol=1e-6)


def test_statistics_are_frozen_and_momentum_comes_back() -> None:
    norm = torch.nn.BatchNorm1d(3)
    with frozen_statistics(norm):
        norm(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 5)
        assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.momentum == pytest.approx(0.1)


def test_weakens_the_backdoor_more_than_fine_tuning(
    backdoored: Victim, clean: Data, rates: Callable[[Model, Victim], tuple[float, float]]
) -> None:
    ca, asr = rates(backdoored.model, backdoored)
    plain = rates(FineTune(epochs=30, lr=0.05).repair(backdoored.model, clean), backdoored)
    sharp = rates(FTSAM(epochs=30, lr=0.05).repair(backdoored.model, clean), backdoored)
    assert sharp[1] < 0.6 * asr and sharp[1] <= plain[1]
    assert sharp[0] > ca - 0.05
