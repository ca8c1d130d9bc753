"""sgd: its schedules, smoothing, patience and decay, by numbers that are known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.learners.sgd import SGD
from torchbands.modalities.observation import Observation

STILL = SGD(batch=8, schedule="constant", precision="float32", momentum=0.0, nesterov=False, weight_decay=0.0)


def two_groups() -> tuple[Model, Data]:
    """Rows of two classes that a line tells apart, and a fresh linear model with a bias."""
    y = torch.arange(32) % 2
    x = torch.stack([y * 2.0 - 1, torch.zeros(32)], 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    return Model(network, Observation(shape=(2,)), 2), Data(x, y)


def test_smoothed_labels_leave_the_answer_less_sure() -> None:
    """The loss is least where p is 1 - s + s / K."""
    sure = []
    for smoothing in (0.0, 0.4):
        model, rows = two_groups()
        STILL.but(lr=1.0, epochs=60, label_smoothing=smoothing).fit(model, rows, seed=0)
        sure.append(float(model.probabilities(rows.x).amax(1).mean()))
    assert sure[0] > 0.97 and sure[1] == pytest.approx(0.8, abs=0.01)


def test_patience_ends_where_the_loss_stays() -> None:
    """The first epoch is better than none, then nothing moves: patience 3 ends after the fourth."""
    for patience, lr, expected in ((3, 0.0, 4), (0, 0.0, 9), (3, 0.05, 9)):
        model, rows = two_groups()
        epochs: list[int] = []
        learner = STILL.but(lr=lr, epochs=9, patience=patience)
        learner.fit(model, rows, seed=0, progress=lambda done, total, what: epochs.append(done))  # noqa: B023
        assert epochs == list(range(1, expected + 1)), (patience, lr)


def test_biases_are_not_pulled_unless_all_are() -> None:
    for decay, shrinks in (("weights", False), ("all", True)):
        model, rows = two_groups()
        layer = model.module[1]  # type: ignore[index]
        assert isinstance(layer, nn.Linear)
        nn.init.constant_(layer.weight, 1.0)
        nn.init.constant_(layer.bias, 1.0)  # both logits are alike on every row: the bias has next to no slope
        STILL.but(lr=1e-2, epochs=1, weight_decay=0.5, decay=decay).fit(model, rows, seed=0)
        assert float(layer.weight.detach().mean()) < 0.995
        assert (float(layer.bias.detach().mean()) < 0.995) == shrinks, decay


def test_rates_of_the_schedules() -> None:
    one_cycle = [SGD(lr=1.0, warm_up=0.25)._rate(t, 8) for t in range(8)]
    assert one_cycle == pytest.approx([0.5, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 1e-3])
    cosine = [SGD(lr=2.0, schedule="cosine")._rate(t, 4) for t in range(4)]
    assert cosine == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5])
    assert {SGD(lr=0.3, schedule="constant")._rate(t, 4) for t in range(4)} == {0.3}
