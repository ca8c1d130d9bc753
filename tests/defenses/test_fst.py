"""FST: the head starts anew, keeps the norm of the given one, and is pushed away from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.defenses.repair.fine_tune import FineTune
from torchbands.defenses.repair.fst import FST


def head(model: Model) -> Tensor:
    assert model.head is not None
    found = model.module.get_submodule(model.head)
    assert isinstance(found, nn.Linear)
    return found.weight.detach()


def test_the_head_keeps_its_norm_and_leaves_its_place(backdoored: Victim, clean: Data) -> None:
    given = head(backdoored.model)
    made = {alpha: head(FST(alpha=alpha, epochs=3).repair(backdoored.model, clean)) for alpha in (0.0, 0.2)}
    for weight in made.values():
        assert weight.norm() == pytest.approx(float(given.norm()), rel=1e-4)
    along = {alpha: float((weight * given).sum() / given.norm().square()) for alpha, weight in made.items()}
    assert along[0.2] < along[0.0] - 0.05 and along[0.2] < 0.3


def test_removes_what_fine_tuning_leaves(
    backdoored: Victim, clean: Data, rates: Callable[[Model, Victim], tuple[float, float]]
) -> None:
    ca, asr = rates(backdoored.model, backdoored)
    tuned = rates(FineTune(epochs=20, lr=0.03).repair(backdoored.model, clean), backdoored)
    after, left = rates(FST(epochs=20, lr=0.03).repair(backdoored.model, clean), backdoored)
    assert asr > 0.95 and tuned[1] > 0.6 and left < 0.1
    assert after > ca - 0.12  # 4 to 8 points, by seed and processor: 287 rows teach a head from nothing


def test_a_network_without_a_linear_head_is_declined(backdoored: Victim, clean: Data) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x).mean((2, 3))
            return out

    model = Model(Pooled(), backdoored.model.modality, 10)
    with pytest.raises(NotApplicable, match="head"):
        FST().repair(model, clean)


def test_the_given_generator_is_left_alone(backdoored: Victim, clean: Data) -> None:
    state = torch.random.get_rng_state()
    FST(epochs=1).repair(backdoored.model, clean)
    assert torch.equal(state, torch.random.get_rng_state())
