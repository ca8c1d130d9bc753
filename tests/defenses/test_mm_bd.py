"""mm-bd: an exact backdoor stands out, a clean model does not, and searching classes together changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.budget import MOST
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.mm_bd import MMBD, margins_of, surprise


class OnePixel(nn.Module):
    """A clean network in which one bright corner pixel means class 3."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        bonus = torch.zeros(10)
        bonus[3] = 60.0
        logits: Tensor = self.net(x)
        return logits + x[:, 0, 0, 0][:, None] * bonus


@pytest.fixture(scope="module")
def nothing(digits: Task) -> Data:
    return digits.load("clean")[:0]


def test_finds_an_exact_backdoor_without_data(nothing: Data, clean_victim: Victim) -> None:
    quiet = MMBD().inspect(clean_victim.model, nothing)
    assert quiet.flagged is False and quiet.score < 1
    loud = MMBD().inspect(
        Model.wrap(OnePixel(clean_victim.model.clone().module), clean_victim.model.modality, 10), nothing
    )
    assert loud.flagged is True and loud.target == 3 and loud.score > 3
    assert loud.evidence["p"] == pytest.approx(10**-loud.score)


def test_ascent_raises_the_margin_within_the_pixels(nothing: Data, clean_victim: Victim) -> None:
    model = clean_victim.model
    seen: list[Tensor] = []
    handle = model.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    try:
        long = MMBD(steps=40).inspect(model, nothing)
    finally:
        handle.remove()
    short = MMBD(steps=1).inspect(model, nothing)
    assert long.per_class is not None and short.per_class is not None
    assert bool((long.per_class > short.per_class).all())
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in seen)


def test_together_or_in_chunks(nothing: Data, clean_victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    together = MMBD(steps=20).inspect(clean_victim.model, nothing).per_class
    monkeypatch.setitem(MOST, "cpu", 30)
    alone = MMBD(steps=20).inspect(clean_victim.model, nothing).per_class
    assert together is not None and alone is not None
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_margin() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margins_of(logits, torch.tensor([0, 1])).tolist() == [1.0, -2.0]


def test_surprise() -> None:
    usual = torch.tensor([20.0, 22, 19, 25, 21, 18, 23, 24, 20])
    assert surprise(torch.cat([usual, torch.tensor([26.0])])) < 1
    far, farther = (surprise(torch.cat([usual, torch.tensor([m])])) for m in (60.0, 200.0))
    assert 3 < far < farther <= 300
    assert surprise(torch.full((10,), 5.0)) == 0.0


def test_few_classes_are_scored_but_never_flagged(nothing: Data, clean_victim: Victim) -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = clean_victim.model.clone().module

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)[:, :3]
            return out

    found = MMBD(steps=10).inspect(Model.wrap(Three(), clean_victim.model.modality, 3), nothing)
    assert found.flagged is None and "too few" in found.evidence["reason"]
    assert found.per_class is not None and found.score == pytest.approx(float(found.per_class.max()))


def test_declines_a_black_box(nothing: Data, clean_victim: Victim) -> None:
    box = Model.black_box(clean_victim.model.probabilities, clean_victim.model.modality, 10)
    with pytest.raises(NotApplicable, match="gradients"):
        MMBD().inspect(box, nothing)
