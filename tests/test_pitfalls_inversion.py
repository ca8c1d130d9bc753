"""Defects of public toolkits in trigger inversion: see docs/pitfalls.md."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.models.neural_cleanse import NeuralCleanse, _Search
from torchbands.measures.cost import measured
from torchbands.modalities.image import MaskedPattern
from torchbands.testing import toy
from torchbands.testing.fixtures import victim


def test_an_inverted_trigger_is_written_as_it_was_searched() -> None:
    """A mask stretched to [0, 1] before it is written on images again."""
    search = MaskedPattern(1, 8, RowRng(0, torch.arange(3)))
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    mask, pattern = search.mask()[2].detach(), search.pattern()[2].detach()
    expected = (1 - mask) * x + mask * pattern
    torch.testing.assert_close(search.harden(2)(x, RowRng(0, torch.arange(5))), expected)
    assert float(mask.max()) < 1.0 and float(mask.min()) > 0.0


def test_the_best_trigger_is_kept_and_not_the_last(monkeypatch: pytest.MonkeyPatch, digits: Task) -> None:
    """The best norm never updated, so that the last mask is returned whatever its success."""
    script = iter([(-3.0, 1.0), (-4.0, 1.0), (-5.0, 0.4), (-3.5, 1.0), (-6.0, 0.0)])  # mask logit, success of the epoch

    def epoch(self: _Search, active: Tensor, *_: object) -> Tensor:
        logit, success = next(script)
        assert isinstance(self.trigger, MaskedPattern)
        with torch.no_grad():
            self.trigger.mask_logit.fill_(logit)
        return torch.full((10,), success)

    monkeypatch.setattr(_Search, "_epoch", epoch)
    found = NeuralCleanse(epochs=5).inspect(digits.fresh(0), digits.load("clean"))
    smallest = 64 * (math.tanh(-4.0) / 2 + 0.5)
    assert found.evidence["sizes"] == pytest.approx([smallest] * 10, abs=1e-3) and all(found.evidence["reached"])
    assert found.trigger is not None
    assert float(found.trigger.tensors()["mask"].sum()) == pytest.approx(smallest, abs=1e-3)


def test_neural_cleanse_runs_the_model_once_a_step(digits: Task) -> None:
    """The loss computed by a second forward pass of the same batch."""
    model, clean = digits.fresh(0), digits.load("clean")
    with measured(model) as cost:
        NeuralCleanse(epochs=2, steps=3, batch=8).inspect(model, clean)
    searched, judged = 2 * 3 * 8 * 10, 10 * len(clean)
    assert cost.forward_passes <= searched + judged + 2


class BrightCorner(nn.Module):
    """A clean network in which a bright corner pixel, which no sample has, means class 3."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + x[:, 0, 0, 0][:, None] * torch.tensor([0.0, 0.0, 0.0, 60.0])


def test_the_inverted_trigger_is_the_same_over_seeds() -> None:
    """Verdicts by the luck of the search's start. The index jumps with the seed; sizes and target must not."""
    model, clean = victim("image", "clean").model, toy("image").load("clean")[:128]
    planted = Model.wrap(BrightCorner(model.clone().module), model.modality, 4)
    search = NeuralCleanse(epochs=20, patience=2, batch=16, steps=4, rows=64)
    for seed in range(3):
        loud, quiet = search.inspect(planted, clean, seed=seed), search.inspect(model, clean, seed=seed)
        assert loud.target == 3 and loud.evidence["sizes"][3] < 0.8
        assert min(quiet.evidence["sizes"]) > 2.0
