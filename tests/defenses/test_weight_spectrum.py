"""weight-spectrum: known spectra, a head row enlarged by hand, as many numbers for every model of an architecture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torchbands.core.attack import Victim
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.weight_spectrum import COLUMNS, WeightSpectrum, row_z, spectral_norm, spectrum
from torchbands.modalities.image import Image


def test_finds_a_row_enlarged_by_hand(digits: Task, clean_victim: Victim) -> None:
    nothing = digits.load("clean")[:0]
    quiet = WeightSpectrum().inspect(clean_victim.model, nothing)
    planted = clean_victim.model.clone()
    with torch.no_grad():
        planted.module.get_submodule("head").weight[6] *= 2.5  # type: ignore[operator, index]
    loud = WeightSpectrum().inspect(planted, nothing)
    assert loud.score > quiet.score + 0.3 and loud.evidence["row"] == 6
    assert loud.flagged is None and quiet.flagged is None


def test_as_many_for_every_model_of_an_architecture(digits: Task, clean_victim: Victim, planted_victim: Victim) -> None:
    nothing = digits.load("clean")[:0]
    one, two = (WeightSpectrum().inspect(v.model, nothing) for v in (clean_victim, planted_victim))
    assert one.statistics is not None and two.statistics is not None
    assert one.statistics.shape == two.statistics.shape == (len(one.evidence["names"]),)
    assert one.evidence["names"] == two.evidence["names"] and bool(torch.isfinite(one.statistics).all())
    assert not torch.allclose(one.statistics, two.statistics, rtol=1e-3)


def test_known_spectrum() -> None:
    matrix = torch.diag(torch.tensor([4.0, 2.0, 2.0, 1.0]))
    found = dict(zip(COLUMNS, spectrum(matrix), strict=True))
    assert found["log norm"] == pytest.approx(math.log(5)) and found["log spectral norm"] == pytest.approx(math.log(4))
    assert found["stable rank"] == pytest.approx(25 / 16) and found["|w| at 50%"] == 0
    noise = spectrum(torch.randn(300, 300, generator=torch.Generator().manual_seed(0)))
    assert noise[-1] == pytest.approx(0, abs=0.1) and noise[5] == pytest.approx(0.6745, abs=0.02)
    assert all(math.isfinite(v) for v in spectrum(torch.zeros(3, 3)))


def test_power_iteration_finds_the_norm_of_a_large_matrix() -> None:
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(1100, 1200, generator=rng)
    matrix += 20 * torch.outer(torch.ones(1100) / 1100**0.5, torch.ones(1200) / 1200**0.5) * 5
    assert spectral_norm(matrix) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-3)


def test_few_rows() -> None:
    assert row_z(torch.tensor([1.0, 1.0])).abs().max() == 0
    assert row_z(torch.tensor([1.0, 9.0])).abs().max() > row_z(torch.tensor([1.0, 2.0])).abs().max() > 0
    assert row_z(torch.ones(10)).abs().max() == 0


def test_declines_weights_that_are_not_finite_and_black_boxes(digits: Task, clean_victim: Victim) -> None:
    nothing, net = digits.load("clean")[:0], nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight[0, 0] = float("nan")  # type: ignore[operator]
    with pytest.raises(NotApplicable, match="not finite"):
        WeightSpectrum().inspect(Model.wrap(net, Image(channels=1, size=8), 10), nothing)
    box = Model.black_box(clean_victim.model.probabilities, digits.modality, 10)
    with pytest.raises(NotApplicable, match="weights"):
        WeightSpectrum().inspect(box, nothing)
