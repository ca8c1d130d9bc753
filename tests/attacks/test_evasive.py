"""Evasive: the backdoor takes, searched triggers stop working, means and statistics look clean."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant, Planted, took

from torchbands.attacks.evasive import Evading, Evasive, class_means
from torchbands.attacks.probes import Probes
from torchbands.core.errors import InputError
from torchbands.core.seeding import generator
from torchbands.core.task import Task

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def planted(plant: Plant) -> Planted:
    return plant("evasive", alpha=0.4, probe=0.5, pixels=0.05, rms=0.08)


@pytest.fixture(scope="module")
def unguarded(plant: Plant) -> Planted:
    """The same backdoor with every evasion switched off."""
    return plant("evasive", alpha=0.4, probe=0.0, match=0.0, recalibrate=False)


def test_takes(planted: Planted) -> None:
    took(planted, asr=0.85, drop=0.06)


def test_a_search_finds_triggers_within_its_budget(unguarded: Planted, digits: Task) -> None:
    model, data = unguarded.victim.model, digits.load("train")
    rows = data[(data.y != 0).nonzero().flatten()[:200]]
    goal = torch.zeros_like(rows.y)
    probes = Probes((1, 8, 8), 10, 0.15, 0.15, generator("p"))
    own = torch.zeros(1, 8, 8)
    own[0, 0, 0] = 1

    def success() -> float:
        return float((model.logits(probes.write(rows.x, rows.y)).argmax(1) == 0).float().mean())

    before, weights = success(), [p.clone() for p in model.module.parameters()]
    probes.search(model, rows.x, rows.y, goal, 30, own)
    assert success() > before + 0.3
    assert float(probes.masks.flatten(1).sum(1).max()) <= 0.15 * 64 + 1e-3
    assert float(probes.delta.square().mean().sqrt()) <= 0.15 + 1e-6
    assert abs(float(probes.delta[0, 0, 0])) < 1e-6
    assert not model.module.training
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(model.module.parameters(), weights, strict=True))


def test_clean_logit_means_are_pulled_to_the_clean_models(digits: Task) -> None:
    (hook,) = Evasive(match=1.0, target=3).hooks(digits, 0)
    assert isinstance(hook, Evading)
    hook.begin(digits.fresh(0), digits.load("train"), 0)
    assert hook.wanted_means is not None
    y = torch.arange(10)
    exact = hook.wanted_means[y].clone()
    assert float(hook._mismatch(exact, y)) == 0.0
    exact[1, 2] += 5
    assert float(hook._mismatch(exact, y)) == 0.0  # neither row nor column of the target
    exact[1, 3] += 2
    assert float(hook._mismatch(exact, y)) == pytest.approx(4 / 19)


def test_running_statistics_become_those_of_clean_rows(planted: Planted, unguarded: Planted, digits: Task) -> None:
    apart = []
    for victim in (unguarded.victim, planted.victim):
        norm = victim.model.module.get_submodule("norms.0")
        assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None and norm.momentum == 0.1
        seen: list[torch.Tensor] = []
        handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))  # noqa: B023
        victim.model.logits(digits.load("train")[:].x)
        handle.remove()
        clean = torch.cat([h.mean((2, 3)) for h in seen]).mean(0)
        apart.append(float((norm.running_mean - clean).abs().max()))
    assert apart[1] < 0.5 * apart[0]


def test_rows_that_resemble_the_attackers_own_are_left_out_of_the_loss(digits: Task) -> None:
    rows = digits.load("train")[:64]
    losses = []
    for similar in (-1.0, 1.0):
        (hook,) = Evasive(match=0.0, similar=similar, probe=0.3).hooks(digits, 0)
        assert isinstance(hook, Evading)
        model = digits.fresh(0)
        hook.begin(model, rows, 0)
        loss = hook.loss(model, rows.x, rows.y, lambda x: x)
        assert loss is not None and torch.isfinite(loss)
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1]


def test_class_means_of_absent_classes_are_marked() -> None:
    means, present = class_means(torch.tensor([[1.0, 3.0], [3.0, 5.0]]), torch.tensor([1, 1]), 2)
    assert means.tolist() == [[0, 0], [2, 4]] and present.tolist() == [False, True]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="probe"):
        Evasive(probe=2.0)
