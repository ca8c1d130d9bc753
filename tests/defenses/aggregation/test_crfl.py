"""CRFL: the bound on the global model, and the certificate's arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from aggregating import joined, server, suspicion, updates
from torchbands.core.errors import InputError
from torchbands.defenses.aggregation.crfl import radius

ATTACK: dict[str, Any] = {
    **{"sigma": 0.01, "bounds": (3.0,), "lipschitz": 2.0, "attackers": 1, "clients": 20},
    **{"poisoned": 0.05, "steps": 30, "lr": 0.001, "scale": 10.0},
}


def test_the_model_is_clipped_and_not_the_update() -> None:
    sent = updates([1.0, 0.0], [-1.0, 2.0], [0.0, 1.0], buffers=[[1], [2], [90]])
    one = server("crfl", bound=2.5, growth=2.5, sigma=0.0)
    first = one.step(sent, torch.tensor([3.0, 3.0]))
    assert first.weights.tolist() == pytest.approx([-1.5, -1.0]), "[3, 4] becomes [1.5, 2]"
    assert first.buffers.tolist() == [2.0] and suspicion(first) == pytest.approx([1.0, 5**0.5, 1.0], rel=1e-4)
    assert one.step(sent, torch.tensor([3.0, 3.0])).weights.tolist() == pytest.approx([0.0, 1.0]), "the bound has grown"


def test_noise_is_of_its_size() -> None:
    out = joined("crfl", updates([0.0] * 20_000, [0.0] * 20_000), sigma=0.5)
    assert float(out.weights.std()) == pytest.approx(0.5, rel=0.03)


def test_the_radius_by_hand() -> None:
    """(sqrt .9 - sqrt .1)^2 = .4; -ln .6 / 10^4 = 5.10826e-5; 2 (10 * 30 * .001 * 2 * .05 / 20)^2 = 4.5e-6."""
    assert radius(0.9, 0.1, **ATTACK) == pytest.approx(math.sqrt(5.10826e-5 / 4.5e-6), rel=1e-5)
    later = ATTACK | {"bounds": (0.01, 0.01)}
    assert radius(0.9, 0.1, **later) == pytest.approx(radius(0.9, 0.1, **ATTACK) / 0.682689, rel=1e-5)
    assert radius(0.9, 0.1, **ATTACK | {"attackers": 2}) == pytest.approx(radius(0.9, 0.1, **ATTACK) / 2)
    assert radius(0.4, 0.4, **ATTACK) == 0.0 and radius(1.0, 0.0, **ATTACK) == math.inf
    with pytest.raises(InputError, match="probabilities"):
        radius(1.2, 0.1, **ATTACK)


@pytest.mark.parametrize("settings", [{"bound": 0.0}, {"growth": -1.0}, {"sigma": -1.0}])
def test_settings_that_nobody_can_mean(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="crfl"):
        joined("crfl", updates([0.0]), **settings)
