"""final-layer: rows that an attacker rewires stand out, ordinary rows do not, and every indicator counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.final_layer import INDICATORS, FinalLayer, indicators, standing_out
from torchbands.modalities.image import Image

CLASSES, WIDTH = 20, 200


@pytest.fixture
def nothing(digits: Task) -> Data:
    return digits.load("clean")[:0]


def rows(seed: int) -> Tensor:
    """Ordinary rows of a final layer."""
    return 0.1 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(seed))


def wrapped(weight: Tensor) -> Model:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))
    with torch.no_grad():
        net[3].weight.copy_(weight)
        net[3].bias.zero_()
    return Model.wrap(net, Image(channels=1, size=8), CLASSES)


def rewired(weight: Tensor, target: int) -> Tensor:
    """A tenth of the features, a trigger's, lead to the target with large weights, as weights with flipped bits do."""
    out = weight.clone()
    out[target, :20] = 0.6
    return out


@pytest.mark.parametrize("seed", range(6))
def test_a_rewired_row_is_named(nothing: Data, seed: int) -> None:
    planted, clean = (FinalLayer().inspect(wrapped(w), nothing) for w in (rewired(rows(seed), 7), rows(seed)))
    assert planted.flagged is True and planted.target == 7
    assert planted.score > clean.score + 3
    assert planted.per_class is not None and int(planted.per_class.argmax()) == 7


def test_ordinary_rows_are_seldom_flagged(nothing: Data) -> None:
    assert sum(bool(FinalLayer().inspect(wrapped(rows(100 + s)), nothing).flagged) for s in range(40)) <= 6


def test_a_trained_network_that_is_rewired(nothing: Data, clean_victim: Victim) -> None:
    model = clean_victim.model.clone()
    head = model.module.get_submodule(model.head or "")
    assert isinstance(head.weight, Tensor)
    with torch.no_grad():
        head.weight[4, ::16] += 8 * head.weight.std()
    planted, clean = FinalLayer().inspect(model, nothing), FinalLayer().inspect(clean_victim.model, nothing)
    assert planted.target == 4 and planted.flagged is True and planted.score > clean.score + 2
    assert model.passes.forward == clean_victim.model.passes.forward or model.passes.forward == 0


@pytest.mark.parametrize("name", INDICATORS)
def test_each_indicator_is_higher_for_the_class_that_has_more_of_it(name: str) -> None:
    weight, bias = rows(0), torch.zeros(CLASSES)
    if name == "mean":
        weight[3] += 0.05
    elif name == "norm":
        weight[3] *= 2
    elif name == "largest":
        weight[3, 0] = 1.0
    elif name == "skewness":
        weight[3] = (8 * weight[3]).exp()
    elif name == "bias":
        bias[3] = 1.0
    else:
        weight += 0.2
        weight[3] -= 0.4
    found = standing_out(indicators(weight, bias))[INDICATORS.index(name)]
    assert int(found.argmax()) == 3 and float(found[3]) > 3


def test_modified_z_scores() -> None:
    found = standing_out(torch.tensor([1.0, 2.0, 3.0, 4.0, 13.0]))
    assert found.tolist() == pytest.approx([-1.349, -0.6745, 0.0, 0.6745, 6.745])
    assert standing_out(torch.ones(5)).tolist() == [0.0] * 5


def test_what_it_cannot_judge_is_declined(nothing: Data, clean_victim: Victim) -> None:
    two = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(NotApplicable, match="too few"):
        FinalLayer().inspect(Model.wrap(two, Image(channels=1, size=8), 2), nothing)
    headless = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NotApplicable, match="no linear head"):
        FinalLayer().inspect(Model.wrap(headless, Image(channels=1, size=8), 10), nothing)
    box = Model.black_box(clean_victim.model.probabilities, clean_victim.model.modality, 10)
    with pytest.raises(NotApplicable):
        FinalLayer().inspect(box, nothing)
    broken = rows(0)
    broken[0, 0] = torch.nan
    with pytest.raises(NotApplicable, match="finite"):
        FinalLayer().inspect(wrapped(broken), nothing)
