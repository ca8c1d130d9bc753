"""I-BAU: the hypergradient against its closed form, and the backdoor unlearned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.defenses.repair.i_bau import IBAU, perturbed
from torchbands.testing import toy


def test_the_search_finds_a_perturbation_that_hurts(backdoored: Victim, clean: Data) -> None:
    model = backdoored.model.clone()
    e = model.embed(clean.x)
    method = IBAU(radius=3.0)
    delta = method._search(model, e, clean.y, torch.arange(len(clean)).split(50))
    assert delta.shape == e.values.shape[1:] and 0 < float(delta.norm()) <= 3.0 + 1e-4
    with torch.no_grad():
        hurt = float((perturbed(model, e, delta).argmax(1) == clean.y).float().mean())
    assert hurt < float((model.logits(clean.x).argmax(1) == clean.y).float().mean()) - 0.2


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
    network = Sum(getattr(task.modality, "size"))  # noqa: B009
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
    ca, asr = rates(backdoored.model, backdoored)
    repaired_ca, repaired_asr = rates(IBAU(rounds=10, batch=20).repair(backdoored.model, clean), backdoored)
    assert repaired_asr < 0.5 * asr and repaired_ca > ca - 0.05


def test_the_implicit_gradient_counts(backdoored: Victim, clean: Data) -> None:
    """Without the fixed-point iteration (K = 0 leaves the direct term's first order) the weights end elsewhere."""
    full = IBAU(rounds=1).repair(backdoored.model, clean)
    short = IBAU(rounds=1, neumann=1).repair(backdoored.model, clean)
    a, b = (torch.cat([p.flatten() for p in m.module.parameters()]) for m in (full, short))
    assert torch.isfinite(a).all() and not torch.equal(a, b)
