"""Same-trigger comparison: the planted class is the one that nobody else obeys, and a pool's order does not matter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.scanner.calibrate import Kind, compare, standard_scores
from torchbands.scanner.same_trigger import disobeyed, halves, obeyed, table, written
from torchbands.triggers.image import Patch

SHORT = TargetInversion(rows=12, steps=40)


class OnePixel(nn.Module):
    """A clean network in which one bright corner pixel, which no digit has, means class 3."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        bonus = torch.zeros(10)
        bonus[3] = 60.0
        return logits + x[:, 0, 0, 0][:, None] * bonus


@pytest.fixture(scope="module")
def references(digits: Task) -> list[Model]:
    """Six clean models, trained shortly."""
    short = digits.but(learner=digits.learner.but(epochs=5))
    return [short.train(short.load("train"), seed=100 + i) for i in range(6)]


@pytest.fixture(scope="module")
def pools(digits: Task, references: Sequence[Model]) -> tuple[Tensor, Tensor]:
    """With a clean model last, and with one that obeys a pixel."""
    clean = digits.load("train").sample(400, "defender", balanced=True)
    short = digits.but(learner=digits.learner.but(epochs=5))
    fresh = short.train(short.load("train"), seed=200)
    planted = Model.wrap(OnePixel(fresh.clone().module), digits.modality, 10)
    every = table([*references, fresh, planted], clean, search=SHORT)
    keep = torch.arange(len(references))
    first, second = (torch.cat([keep, torch.tensor([len(references) + i])]) for i in range(2))
    return every[first][:, first], every[second][:, second]


def test_the_planted_class_is_the_one_that_no_other_model_obeys(pools: tuple[Tensor, Tensor]) -> None:
    quiet, loud = (standard_scores(disobeyed(pool), Kind()) for pool in pools)
    assert int(loud[-1].argmax()) == 3
    assert float(loud[-1, 3]) > float(quiet[-1].max()) + 2
    assert float(loud[-1, 3]) > float(loud[:-1].max())
    found = compare({"same": disobeyed(pools[1])}, {"same": Kind()})
    assert found is not None and found.p == pytest.approx(1 / 7)


def test_its_own_model_obeys_it(pools: tuple[Tensor, Tensor]) -> None:
    own = pools[1][-1, -1]
    assert float(own[3].exp()) > 0.5 > 0.2 > float(pools[1][-1, :-1, 3].mean().exp())


def test_every_member_of_a_pool_is_treated_alike() -> None:
    numbers = -torch.rand(7, 7, 4, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(disobeyed(numbers)[order], disobeyed(numbers[order][:, order]))


def test_what_a_model_makes_of_its_own_trigger_does_not_count() -> None:
    numbers = -torch.rand(5, 5, 3, generator=torch.Generator().manual_seed(0))
    other = numbers.clone()
    other[torch.arange(5), torch.arange(5)] = -100.0
    torch.testing.assert_close(disobeyed(numbers), disobeyed(other))
    assert disobeyed(numbers)[1, 2] == pytest.approx(-float((numbers[1].sum(0) - numbers[1, 1])[2]) / 4)
    with pytest.raises(InputError, match="at least 2"):
        disobeyed(numbers[:1, :1])


def test_triggers_are_shown_on_other_rows_of_other_classes(digits: Task, references: Sequence[Model]) -> None:
    clean = digits.load("train").sample(300, "defender", balanced=True)
    searching, shown = halves(clean, 0)
    assert len(searching) + len(shown) == len(clean)
    lines = {tuple(x.flatten().tolist()) for x in searching.x[torch.arange(len(searching))]}
    assert not any(tuple(x.flatten().tolist()) in lines for x in shown.x[torch.arange(len(shown))])
    batches = written(shown, [Patch()] * 10, 0)
    said = obeyed(references[0], batches)
    by_hand = references[0].logits(batches[4]).log_softmax(1)[:, 4].mean()
    assert said.shape == (10,) and float(said[4]) == pytest.approx(float(by_hand), abs=1e-5)
