"""Known answers for the three axes of stealth."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.metric import Undefined
from torchbands.core.seeding import RowRng
from torchbands.measures import stealth
from torchbands.modalities.image import Image, ssim
from torchbands.triggers.image import Patch


@pytest.fixture(scope="module")
def rows(clean_victim: Victim) -> Data:
    test = clean_victim.task.load("test")  # in the order of its writers: shuffled here
    return test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))]


def test_untouched_rows_are_wholly_hidden(clean_victim: Victim, rows: Data) -> None:
    axis = stealth.input_axis(clean_victim.model, rows[:100], rows[:100], rows[100:200])
    assert isinstance(axis["psnr_db"], Undefined) and "changed" in axis["psnr_db"].reason
    assert axis["linf"] == 0.0 and axis["ssim"] == pytest.approx(1.0)
    assert isinstance(axis["stealth"], float) and axis["stealth"] > 0.7


def test_a_large_patch_is_obvious(clean_victim: Victim, rows: Data) -> None:
    stamped = Data(Patch(size=4)(rows[:100].x, RowRng(0, torch.arange(100))), rows[:100].y)
    axis = stealth.input_axis(clean_victim.model, rows[:100], stamped, rows[100:200])
    assert isinstance(axis["stealth"], float) and axis["stealth"] < 0.05
    assert axis["l0_pixels"] <= 16


def test_a_planted_trigger_shows_in_the_features(planted_victim: Victim, clean_victim: Victim) -> None:
    measured = stealth.measure(planted_victim, clean_victim)
    feature = measured["feature"]
    assert isinstance(feature["probe_auroc"], float) and feature["probe_auroc"] > 0.8
    assert isinstance(measured["parameter"]["stealth"], Undefined)
    distance = measured["parameter"]["weight_distance"]
    assert isinstance(distance, float) and distance > 0.01


def test_a_model_is_no_distance_from_itself(clean_victim: Victim) -> None:
    assert stealth.parameter_axis(clean_victim.model, clean_victim.model)["weight_distance"] == 0.0


def test_psnr_and_ssim_take_one_as_the_data_range() -> None:
    a = torch.full((2, 1, 16, 16), 0.5)
    b = a + 0.1
    far = Image(channels=1, size=16).distance(a, b)
    assert far["psnr_db"].tolist() == pytest.approx([20.0, 20.0], abs=1e-3)
    assert far["linf"].tolist() == pytest.approx([0.1, 0.1], abs=1e-6)
    c1 = 0.01**2
    expected = (2 * 0.5 * 0.6 + c1) / (0.5**2 + 0.6**2 + c1)  # flat images: only the luminance term is left
    assert ssim(a, b).tolist() == pytest.approx([expected] * 2, abs=1e-4)
