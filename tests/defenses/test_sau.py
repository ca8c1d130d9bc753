"""SAU: shared adversarial examples are found, what it unlearns is the given model's answer, backdoors fade."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.defenses.repair.sau import SAU, divergence, embedded, moved, spread
from torchbands.testing import toy

Measure = Callable[[Model, Victim], tuple[float, float]]


def test_the_search_fools_both_models_within_the_radius(backdoored: Victim, clean: Data) -> None:
    model = backdoored.model.clone()
    e = model.encode(clean.x)
    radius = 0.2 * spread(model, e)
    delta = SAU().search(model, model.clone(), e, clean.y, radius)
    assert delta.shape == e.values.shape and float(delta.abs().max()) <= 0.2 + 1e-6
    with torch.no_grad():
        read, start = moved(model, e, delta).argmax(1), moved(model, e, torch.full_like(delta, 0.2)).argmax(1)
        at = model.modality.project(e.values + delta)
    assert float((read != clean.y).float().mean()) > max(0.5, float((start != clean.y).float().mean()))
    assert float(at.min()) >= 0 and float(at.max()) <= 1


def test_models_that_answer_alike_have_no_divergence() -> None:
    a = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence(a, a), torch.zeros(5), atol=1e-6, rtol=0)
    apart = divergence(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]]))
    torch.testing.assert_close(apart, torch.tensor([2.0]).log(), atol=1e-4, rtol=0)


def test_unlearning_pushes_the_given_models_answer_away(backdoored: Victim, clean: Data) -> None:
    given, repaired = backdoored.model.clone(), backdoored.model.clone()
    e, y = given.encode(clean.x), clean.y
    delta = SAU().search(repaired, given, e, y, torch.tensor(0.2))
    with torch.no_grad():
        answer = moved(given, e, delta).argmax(1)
    fooled = answer != y

    def share() -> float:
        with torch.no_grad():
            return float(moved(repaired, e, delta).softmax(1).gather(1, answer[:, None])[fooled].mean())

    before = share()
    optimizer = torch.optim.Adam(repaired.module.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        SAU()._loss(repaired, given, e, y, delta).backward()
        optimizer.step()
    assert share() < before - 0.2


def test_unlearns_badnets_and_keeps_accuracy(
    backdoored: Victim, untouched: Victim, clean: Data, rates: Measure
) -> None:
    ca, asr = rates(backdoored.model, backdoored)
    repaired_ca, repaired_asr = rates(SAU().repair(backdoored.model, clean), backdoored)
    assert asr > 0.9 and repaired_asr < 0.2 and repaired_ca > ca - 0.04
    harmless = SAU().repair(untouched.model, clean)
    assert rates(harmless, untouched)[0] > rates(untouched.model, untouched)[0] - 0.04


@pytest.mark.parametrize("name", ["text", pytest.param("code", marks=pytest.mark.slow)])
def test_embeddings_are_where_words_and_bytes_are_unlearned(name: str) -> None:
    task, attack = toy(name), build("badnets").but(rate=0.1)
    assert isinstance(attack, Attack)
    victim, rows, test = attack.run(task, 0), task.load("clean")[:], task.load("test")
    triggered, wanted = victim.triggered(test)

    def measure(model: Model) -> tuple[float, float]:
        ca = (model.logits(test.x).argmax(1) == test.y).float().mean()
        return float(ca), float((model.logits(triggered.x).argmax(1) == wanted).float().mean())

    (ca, asr), (repaired_ca, repaired_asr) = measure(victim.model), measure(SAU().repair(victim.model, rows))
    assert asr > 0.95 and repaired_asr < 0.6 * asr and repaired_ca > ca - 0.12


def test_padding_is_never_perturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy("text")
    model, rows = task.fresh(0), task.load("clean")[torch.arange(8)]
    e = model.encode(rows.x).trimmed()
    assert e.mask is not None and not e.mask.all()
    seen: list[torch.Tensor] = []

    def look(at: Encoded) -> torch.Tensor:
        seen.append(at.values.detach())
        return torch.zeros(len(at.values), 4)

    monkeypatch.setattr(model, "logits_at", look)
    moved(model, e, torch.ones_like(embedded(model, e).values))
    shift = seen[0] - embedded(model, e).values
    assert torch.equal(shift[~e.mask], torch.zeros_like(shift[~e.mask]))
    torch.testing.assert_close(shift[e.mask], torch.ones_like(shift[e.mask]))


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="at least 1"):
        SAU(steps=0)
