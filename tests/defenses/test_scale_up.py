"""scale-up: consistency under amplification, for all samples, with the threshold always set; or it declines."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.inputs.scale_up import ScaleUp
from torchbands.testing import toy


def auroc(victim: Victim) -> float:
    test = victim.task.load("test")
    triggered, _ = victim.triggered(test)
    fitted = ScaleUp().fit(victim.model, victim.task.load("clean"))
    clean, suspect = fitted.score(test.x), fitted.score(triggered.x)
    return float(roc_auc_score([0] * len(clean) + [1] * len(suspect), torch.cat([clean, suspect])))


def test_triggered_inputs_score_higher(planted_victim: Victim, clean_victim: Victim) -> None:
    assert auroc(planted_victim) > 0.65
    assert auroc(clean_victim) < 0.55


def brightness(x: Tensor) -> Tensor:
    """Class 1 when any pixel is at least 0.5, class 2 when the corner is lit, else class 0."""
    label = torch.where(x[:, 0, 0, 0] > 0, 2, (x.flatten(1).amax(1) >= 0.5).long())
    return torch.eye(3)[label]


def image(value: float, corner: float = 0.0) -> Tensor:
    x = torch.full((1, 1, 8, 8), value)
    x[:, :, 0, 0] = corner
    return x


def test_share_of_agreeing_copies_is_exact(digits: Task) -> None:
    model = Model.black_box(brightness, digits.modality, 3)
    fitted = ScaleUp().fit(model, digits.load("clean"))
    x = torch.cat([image(0.06), image(0.12), image(0.8), image(0.1, corner=1.0)])
    torch.testing.assert_close(fitted.score(x), torch.tensor([0.6, 0.2, 1.0, 1.0]))
    assert fitted.flag(x).tolist() == [True, False, True, True]


def test_copies_are_clipped_to_the_range(digits: Task) -> None:
    seen: list[Tensor] = []

    def predict(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.eye(10)[torch.zeros(len(x), dtype=torch.int64)]

    ScaleUp().fit(Model.black_box(predict, digits.modality, 10), digits.load("clean")).score(digits.load("test")[:9].x)
    assert len(seen) == 6
    for x in seen:
        digits.modality.check(x)


def test_every_sample_is_judged(digits: Task, planted_victim: Victim) -> None:
    test = digits.load("test")
    fitted = ScaleUp().fit(planted_victim.model, digits.load("clean"))
    scores = fitted.score(test.x)
    assert scores.shape == (len(test),) and len(test) > planted_victim.model.chunk
    late = test[300:].x
    torch.testing.assert_close(fitted.score(late), scores[300:])
    assert fitted.score(test.x[torch.arange(0)]).shape == (0,)


@pytest.mark.parametrize("threshold", [0.5, 0.9])
@pytest.mark.parametrize("calibrated", [True, False])
def test_threshold_is_set_however_it_is_given(
    digits: Task, planted_victim: Victim, threshold: float, calibrated: bool
) -> None:
    fitted = ScaleUp(threshold=threshold, calibrated=calibrated).fit(planted_victim.model, digits.load("clean"))
    assert fitted.threshold == threshold
    x = digits.load("test")[:30].x
    assert torch.equal(fitted.flag(x), fitted.score(x) > threshold)


def test_calibration_standardises_by_predicted_class(digits: Task) -> None:
    model = Model.black_box(brightness, digits.modality, 3)
    dim = torch.cat([image(v) for v in (0.06, 0.06, 0.06, 0.048, 0.048, 0.048)])  # class 0, shares .6 and .8
    bright = torch.cat([image(0.9)] * 6)  # class 1, all 1
    fitted = ScaleUp(calibrated=True).fit(model, Data(torch.cat([dim, bright]), torch.zeros(12, dtype=torch.int64)))
    got = fitted.score(torch.cat([image(0.06), image(0.9), image(0.3)]))
    spread = float(torch.tensor([0.6, 0.6, 0.6, 0.8, 0.8, 0.8]).std())
    torch.testing.assert_close(got, torch.tensor([-0.1 / spread, 0.0, -0.7 / spread]), rtol=1e-4, atol=1e-4)


def test_declines_where_values_have_no_range() -> None:
    task = toy("text")
    with pytest.raises(NotApplicable, match="range"):
        ScaleUp().fit(task.fresh(0), task.load("clean"))
