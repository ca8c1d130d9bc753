"""ABL: poison that is learned first is isolated and unlearned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.training.abl import ABL, Losses, Trap, Unlearn, Without
from torchbands.testing import toy
from torchbands.triggers.image import Patch

#: Where no digit has any ink.
CORNER = Patch(size=3, margin=0, corner="top-left")


def _cornered(digits: Task) -> Data:
    """A corner that is dark in every digit gives a class away in every fifth row: nothing is learned as fast."""
    train = digits.load("train")
    at = torch.arange(0, len(train), 5)
    x, y = train.x[torch.arange(len(train))], train.y.clone()
    x[at], y[at] = CORNER(x[at], RowRng(0, at)), 7
    return Data(x, y)


def test_poison_that_is_learned_first_does_not_take(digits: Task) -> None:
    data = _cornered(digits)
    test = digits.load("test")
    rows = test[test.y != 7]
    stamped = CORNER(rows.x[torch.arange(len(rows))], RowRng(0, torch.arange(len(rows))))

    def rates(model: Model) -> tuple[float, float]:
        right = (model.logits(test.x).argmax(1) == test.y).float().mean()
        return float(right), float((model.logits(stamped).argmax(1) == 7).float().mean())

    (ca, asr), (cured_ca, cured_asr) = rates(digits.train(data)), rates(ABL(isolated=0.05).train(digits.recipe, data))
    assert asr > 0.95 and cured_asr < 0.3
    assert cured_ca > ca - 0.15


def test_unlearning_innocent_rows_costs_a_bounded_share_of_accuracy(clean_victim: Victim) -> None:
    data, test = clean_victim.training_data().blind(), clean_victim.task.load("test")
    model = ABL().train(clean_victim.task, data, seed=0)
    assert float((model.logits(test.x).argmax(1) == test.y).float().mean()) > 0.65


def test_the_trap_turns_the_slope_below_gamma(clean_victim: Victim) -> None:
    """By the paper's formula for every row, by flooding for the batch as a whole: they are not the same."""
    data, model = clean_victim.training_data()[torch.arange(64)], clean_victim.model
    wrong = data.y.clone()
    wrong[:4] = (wrong[:4] + 1) % 10
    losses = F.cross_entropy(model.logits(data.x), wrong, reduction="none")
    high, low = float(losses[:4].sum()) / 64, float(losses[4:].sum()) / 64
    assert high > 0.05 and float(losses[4:].max()) < 1.0 < float(losses[:4].min())
    value = lambda gamma, trap: float(Trap(gamma, trap).loss(model, data.x, wrong, lambda x: x).detach())  # noqa: E731
    assert value(1.0, "ascent") == pytest.approx(high - low, abs=1e-4)
    assert value(0.0, "ascent") == pytest.approx(high + low, abs=1e-4)
    assert value(9.0, "flooding") == pytest.approx(18.0 - high - low, abs=1e-4)
    assert value(0.0, "flooding") == pytest.approx(high + low, abs=1e-4)


def test_what_is_learned_first_is_isolated(digits: Task) -> None:
    data = _cornered(digits)
    losses = Losses()
    trap = [Trap(0.5, "flooding"), losses]
    digits.learner.but(epochs=10).fit(digits.fresh(0), data, hooks=trap, progress=losses.note)
    rows, marked = ABL()._isolate(losses.mean(), data, 10)
    assert len(rows) == round(0.01 * len(data)) and bool((marked == data.y[rows] + 10).all())
    assert float((rows % 5 == 0).float().mean()) > 0.8


def test_marked_rows_are_left_out_and_then_pushed_away(clean_victim: Victim) -> None:
    data, model = clean_victim.training_data()[torch.arange(64)], clean_victim.model
    marked = data.y.clone()
    marked[:8] += 10
    same = lambda x: x  # noqa: E731
    rest = F.cross_entropy(model.logits(data.x[8:]), data.y[8:])
    assert abs(float(Without().loss(model, data.x, marked, same)) - float(rest)) < 1e-4
    p = model.probabilities(data.x[:8]).double().gather(1, data.y[:8, None])
    away = -(1 - p).clamp_min(1e-9).log().mean()
    with torch.no_grad():
        assert abs(float(Unlearn().loss(model, data.x, marked, same)) - float(rest + away)) < 0.05
        unknown = 10 + (data.y + 1) % 10  # labels the model gives no chance: nothing is left to unlearn
        floor = -torch.tensor(0.9).log()
        assert abs(float(Unlearn().loss(model, data.x, unknown, same)) - float(floor)) < 0.01


def test_declines_a_learner_without_epochs() -> None:
    task: Task = toy("federated")
    try:
        ABL().train(task.recipe, task.load("train"))
    except NotApplicable as said:
        assert "epochs" in said.reason
    else:
        raise AssertionError("a federated learner has no epochs to divide")


def test_settings_are_checked() -> None:
    for wrong in ({"isolated": 0.0}, {"isolation": 0.6, "unlearning": 0.5}):
        try:
            ABL(**wrong)
        except InputError:
            continue
        raise AssertionError(wrong)
