"""I-BAU: the hypergradient against its closed form, and the backdoor unlearned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.defenses.repair.i_bau import IBAU, NUMBERS, perturbed
from torchbands.modalities.image import Image
from torchbands.testing import toy


def test_the_search_finds_a_perturbation_that_hurts(backdoored: Victim, clean: Data) -> None:
    model = backdoored.model.clone()
    e = model.embed(clean.x)
    delta = IBAU(radius=3 / 8)._search(model, e, torch.arange(len(clean)).split(50))
    assert delta.shape == e.values.shape[1:] and 0 < float(delta.norm()) <= 3.0 + 1e-4
    with torch.no_grad():
        hurt = float((perturbed(model, e, delta).argmax(1) == clean.y).float().mean())
    assert hurt < float((model.logits(clean.x).argmax(1) == clean.y).float().mean()) - 0.2


def _bent() -> tuple[Model, Encoded, Tensor, Tensor]:
    """A tiny smooth network, 12 rows, their labels and a perturbation."""
    rng = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 3))
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng))
    model = Model(module, Image(channels=1, size=2), 3)
    x = torch.rand(12, 1, 2, 2, generator=rng)
    return model, model.embed(x), torch.arange(12) % 3, torch.randn(1, 2, 2, generator=rng)


def test_the_search_climbs_away_from_the_models_own_answers() -> None:
    """From nothing, one step is that of plain ascent on the cross-entropy: its sign and its labels are both told."""
    model, e, _, _ = _bent()
    answers = model.logits_at(e).argmax(1)
    free = torch.zeros(1, 2, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(F.cross_entropy(model.logits_at(Encoded(e.values + free)), answers), free)
    found = IBAU(search_lr=0.1)._search(model, e, [torch.arange(12)])
    torch.testing.assert_close(found, 0.1 * slope)
    assert float(slope.norm()) > 0.1
    with torch.no_grad():
        assert F.cross_entropy(perturbed(model, e, found), answers) > F.cross_entropy(model.logits_at(e), answers)


@pytest.mark.parametrize(("terms", "penalty", "lr"), [(1, 0.05, 0.7), (4, 2.0, 0.2), (4, 0.05, 0.7)])
def test_the_hypergradient_is_that_of_its_closed_form(terms: int, penalty: float, lr: float) -> None:
    """Direct slope plus sum_k J^k g through one inner step, with J and the mixed derivative written out in full; in the
    last case the terms grow, and all are taken. The step of four numbers is 4 / 3072 of the one that is set."""
    model, e, y, delta = _bent()
    method = IBAU(neumann=terms, inner_lr=lr * NUMBERS / 4, portion=0.5, penalty=penalty)
    outer_rows, inner_rows = (e.at(slice(0, 6)), y[:6]), (e.at(slice(6, 12)), y[6:])
    weights = list(model.module.parameters())

    def inner(at: Tensor) -> Tensor:
        loss = F.cross_entropy(model.logits_at(Encoded(inner_rows[0].values + at)), inner_rows[1])
        return penalty * at.square().sum() - loss

    free = delta.clone().requires_grad_()
    moved = torch.cat([outer_rows[0].values[:3] + free, outer_rows[0].values[3:]])
    outer, *direct = torch.autograd.grad(F.cross_entropy(model.logits_at(Encoded(moved)), y[:6]), [free, *weights])
    hessian = torch.autograd.functional.hessian(inner, delta).reshape(4, 4)
    adjoint, term = torch.zeros(4), outer.flatten()
    for _ in range(terms):
        adjoint, term = adjoint + term, term - lr * hessian @ term
    (slope,) = torch.autograd.grad(inner(free), free, create_graph=True)
    mixed = torch.autograd.grad(-lr * (slope.flatten() * adjoint).sum(), weights, allow_unused=True)
    expected = [d if m is None else d + m for d, m in zip(direct, mixed)]

    method._unlearn(model, weights, torch.optim.SGD(weights, lr=0.0), outer_rows, inner_rows, delta)
    for weight, wanted in zip(weights, expected):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, wanted, rtol=1e-3, atol=1e-4)
    assert any(float((d - wanted).norm()) > 0.1 for d, wanted in zip(direct, expected)), "the implicit part counts"


def test_a_perturbation_may_leave_the_range_of_samples() -> None:
    """Clamped, it would have no gradient where it leaves, and the weights would be ruined."""
    model, e, _, _ = _bent()
    far = torch.full((1, 2, 2), 5.0)
    torch.testing.assert_close(perturbed(model, e, far), model.logits_at(Encoded(e.values + 5.0)))


class Sum(nn.Module):
    """Reads every position alike, padding too: what a perturbation adds to its logits is known."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(ids).sum(1))
        return logits


def test_only_the_first_rows_carry_the_perturbation_and_padding_never() -> None:
    task = toy("text")
    network = Sum(task.modality.token_count)
    model = Model.wrap(network, task.modality, 3)
    e = model.embed(task.load("clean").x[:8])
    assert e.mask is not None and not e.mask[:2].all() and len(e.mask[:2].sum(1).unique()) == 2
    delta = torch.randn(e.values[0].shape, generator=torch.Generator().manual_seed(0))
    plain, some = model.logits_at(e), perturbed(model, e, delta, 2)
    added = (e.mask[..., None] * delta).sum(1) @ network.head.weight.T
    torch.testing.assert_close(some[:2], plain[:2] + added[:2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(some[2:], plain[2:])


def test_unlearns_badnets_and_keeps_accuracy(
    backdoored: Victim, clean: Data, rates: Callable[[Model, Victim], tuple[float, float]]
) -> None:
    """By the mean of two seeds: which rows carry the perturbation is drawn, and draws differ much."""
    ca, asr = rates(backdoored.model, backdoored)
    method = IBAU(rounds=10, batch=20, portion=0.5)
    made = [rates(method.repair(backdoored.model, clean, seed=seed), backdoored) for seed in range(2)]
    repaired_ca, repaired_asr = (sum(part) / len(made) for part in zip(*made))
    assert repaired_asr < 0.5 * asr and repaired_ca > ca - 0.1
