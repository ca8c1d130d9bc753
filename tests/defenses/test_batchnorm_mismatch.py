"""batchnorm-mismatch: zero where the statistics are the data's, higher for a planted victim, declines without."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.batchnorm_mismatch import BatchNormMismatch, _mismatch
from torchbands.modalities.image import Image


def test_ranks_a_planted_victim_above_a_clean_one(clean: Data, backdoored: Victim, untouched: Victim) -> None:
    loud = BatchNormMismatch().inspect(backdoored.model, clean)
    quiet = BatchNormMismatch().inspect(untouched.model, clean)
    assert loud.score > 1.1 * quiet.score and loud.flagged is None


def estimated_again(model: Model, x: Tensor) -> Model:
    """The running statistics set to those of a batch, as an evading attacker does."""
    out = model.clone()
    for layer in out.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
    with out.training() as module, torch.no_grad():
        for _ in range(4):  # a layer settles once those before it have
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.reset_running_stats()
            module(x)
    return out


def test_is_zero_when_estimated_on_the_same_data(clean: Data, backdoored: Victim) -> None:
    found = BatchNormMismatch().inspect(estimated_again(backdoored.model, clean.x), clean)
    assert found.statistics is not None and float(found.statistics.max()) < 0.02
    assert found.score < 0.1 * BatchNormMismatch().inspect(backdoored.model, clean).score


def test_measures_a_shift_made_by_hand(clean: Data, untouched: Victim) -> None:
    model = estimated_again(untouched.model, clean.x)
    layer = model.module.get_submodule("norms.0")
    assert isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None
    layer.running_mean[2] += 3 * (layer.running_var[2] + layer.eps).sqrt()
    found = BatchNormMismatch().inspect(model, clean)
    assert found.evidence["layers"]["norms.0"][1] == pytest.approx(3, abs=0.05)
    assert found.evidence["layers"]["norms.0"][3] < 0.02
    assert found.statistics is not None and found.statistics.shape == (4 * len(found.evidence["layers"]),)


def test_both_sides_of_mean_and_variance_count() -> None:
    """Entering: mean 0 and variance 1; stored are a mean above and one below, a variance larger and a smaller one."""
    layer = nn.BatchNorm1d(2, eps=0.0)
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.copy_(torch.tensor([2.0, -3.0]))
    layer.running_var.copy_(torch.tensor([4.0, 0.25]))
    shift, ratio = _mismatch(layer, torch.zeros(2).double(), torch.ones(2).double())
    assert shift.tolist() == pytest.approx([2.0, 3.0])
    assert ratio.tolist() == pytest.approx([math.log(4), math.log(4)])


def test_declines_without_batchnorm(clean: Data) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4 * 36, 10))
    with pytest.raises(NotApplicable, match="BatchNorm"):
        BatchNormMismatch().inspect(Model.wrap(plain, Image(channels=1, size=8), 10), clean)


def test_declines_a_black_box(digits: Task, clean: Data, untouched: Victim) -> None:
    box = Model.black_box(untouched.model.probabilities, digits.modality, 10)
    with pytest.raises(NotApplicable, match="weights"):
        BatchNormMismatch().inspect(box, clean)
