"""strip: entropy over classes, low for triggered inputs, the same in any batch, its threshold from clean data."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.inputs.strip import STRIP, FittedSTRIP


def auroc(victim: Victim, detector: STRIP) -> float:
    test = victim.task.load("test")
    triggered, _ = victim.triggered(test)
    fitted = detector.fit(victim.model, victim.task.load("clean"))
    clean, suspect = fitted.score(test.x), fitted.score(triggered.x)
    return float(roc_auc_score([0] * len(clean) + [1] * len(suspect), torch.cat([clean, suspect])))


def test_triggered_inputs_score_higher_and_the_rule_finds_them(planted_victim: Victim) -> None:
    assert auroc(planted_victim, STRIP()) > 0.95  # would be under 0.05 with the sign turned round
    test = planted_victim.task.load("test")
    fitted = STRIP().fit(planted_victim.model, planted_victim.task.load("clean"))
    assert int(fitted.flag(test.x).sum()) / len(test) < 0.06
    triggered, _ = planted_victim.triggered(test)
    assert int(fitted.flag(triggered.x).sum()) / len(triggered) > 0.9


def test_quiet_on_a_clean_model(clean_victim: Victim) -> None:
    test = clean_victim.task.load("test")
    triggered, _ = clean_victim.triggered(test)
    fitted = STRIP().fit(clean_victim.model, clean_victim.task.load("clean"))
    assert int(fitted.flag(triggered.x).sum()) / len(triggered) < 0.06
    assert auroc(clean_victim, STRIP()) < 0.6


def test_entropy_is_over_classes_not_over_overlays(digits: Task) -> None:
    def certain(x: Tensor) -> Tensor:  # a different class for every overlay, each with certainty
        return torch.eye(10)[torch.arange(len(x)) % 10]

    def undecided(x: Tensor) -> Tensor:
        return torch.full((len(x), 10), 0.1)

    clean = digits.load("clean")
    for predict, bits in ((certain, 0.0), (undecided, math.log2(10))):
        fitted = STRIP(overlays=20).fit(Model.black_box(predict, digits.modality, 10), clean)
        scores = fitted.score(clean.x)
        torch.testing.assert_close(scores, torch.full((len(clean),), -bits), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("superposition", ["add", "blend"])
def test_superimposed_images_stay_in_range(digits: Task, clean_victim: Victim, superposition: str) -> None:
    seen: list[Tensor] = []

    def predict(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return clean_victim.model.probabilities(x)

    clean = digits.load("clean")
    detector = STRIP(superposition="add" if superposition == "add" else "blend", overlays=8)
    fitted = detector.fit(Model.black_box(predict, digits.modality, 10), clean)
    assert isinstance(fitted, FittedSTRIP)
    seen.clear()
    x = clean.x[torch.arange(1)]
    fitted.score(x)
    mixed = torch.cat(seen)
    digits.modality.check(mixed)
    overlays = fitted.overlays
    expected = (x + overlays).clamp(0, 1) if superposition == "add" else (x + overlays) / 2
    torch.testing.assert_close(mixed, expected)


def test_a_score_does_not_depend_on_the_batch(digits: Task, planted_victim: Victim) -> None:
    fitted = STRIP(overlays=16).fit(planted_victim.model, digits.load("clean"))
    x = digits.load("test")[:37].x
    together = fitted.score(x)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fitted.score(x[order]), together[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fitted.score(x[5:6]), together[5:6], atol=1e-4, rtol=1e-4)


def test_every_sample_is_judged(digits: Task, planted_victim: Victim) -> None:
    fitted = STRIP(overlays=4).fit(planted_victim.model, digits.load("clean"))
    test = digits.load("test")
    scores = fitted.score(test.x)
    assert scores.shape == (len(test),) and len(test) > planted_victim.model.chunk
    assert fitted.score(test.x[torch.arange(0)]).shape == (0,)


def test_threshold_comes_from_clean_scores(digits: Task, planted_victim: Victim) -> None:
    clean = digits.load("clean")
    normal = STRIP(overlays=8).fit(planted_victim.model, clean)
    loose = STRIP(overlays=8, frr=0.2).fit(planted_victim.model, clean)
    shuffled = STRIP(overlays=8).fit(planted_victim.model, Data(clean.x, clean.y.flip(0)))
    assert normal.threshold is not None and loose.threshold is not None
    assert loose.threshold < normal.threshold == shuffled.threshold
    quantile = STRIP(overlays=8, frr=0.2, calibration="quantile").fit(planted_victim.model, clean)
    assert 0.05 < int(quantile.flag(clean.x).sum()) / len(clean) < 0.35


def test_same_seed_same_scores(digits: Task, planted_victim: Victim) -> None:
    clean, x = digits.load("clean"), digits.load("test")[:20].x
    one, two, other = (STRIP(overlays=8).fit(planted_victim.model, clean, seed=s).score(x) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)
