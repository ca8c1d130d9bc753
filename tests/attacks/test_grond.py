"""Grond: a bounded universal pattern on the target class alone, and no conspicuous unit after any epoch."""

from __future__ import annotations

import pytest
import torch
from attack_planting import Plant, took

from torchbands.attacks.grond import Grond, Pruning, prune
from torchbands.attacks.surrogate import surrogate, universal
from torchbands.core.attack import Victim
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.seeding import RowRng, generator
from torchbands.core.task import Task
from torchbands.measures.lipschitz import channel_lipschitz, z_scores
from torchbands.testing import toy
from torchbands.triggers.universal import AddedPattern

pytestmark = pytest.mark.timeout(600)  # a surrogate and a victim: long on a crowded machine


def test_takes_when_strong(plant: Plant) -> None:
    """8x8 grey images need a far larger eps than the paper's, and few epochs most of the class."""
    planted = plant("grond", eps=0.4, target=1, rate=0.8)
    took(planted, asr=0.5, control=0.2, drop=0.05)


def test_the_pattern_is_bounded_and_fools_the_surrogate(digits: Task) -> None:
    trigger = Grond(eps=0.3, target=8).test_trigger(digits, 0)
    assert float(trigger.weights["delta"].abs().max()) <= 0.3 + 1e-6
    test = digits.load("test")
    rows = test[test.y != 8]
    stamped = trigger(rows.x, RowRng(0, torch.arange(len(rows))))
    model = surrogate(digits, 0)
    hits = [float((model.logits(x).argmax(1) == 8).float().mean()) for x in (rows.x, stamped)]
    assert hits[1] > hits[0] + 0.25


def test_only_the_target_class_is_changed_and_labels_are_kept(digits: Task) -> None:
    clean = digits.load("train")
    poisoned = Grond(target=3).poison(clean, digits, 0)
    assert poisoned.poisoned is not None and torch.equal(poisoned.y, clean.y)
    assert set(clean.y[poisoned.poisoned].tolist()) == {3}
    assert int(poisoned.poisoned.sum()) == round(0.5 * int((clean.y == 3).sum()))
    gap = (poisoned[:].x - clean[:].x).flatten(1).abs()
    assert torch.equal(gap.amax(1) > 0, poisoned.poisoned)
    assert float(gap.max()) <= 8 / 255 + 1e-6


def test_an_outlying_unit_gets_its_layer_s_mean_and_statistics_stay(digits: Task) -> None:
    model = digits.fresh(0)
    conv = model.module.get_submodule("convs.1")
    assert isinstance(conv, torch.nn.Conv2d)
    with torch.no_grad():
        conv.weight[5] *= 40
    norm = model.module.get_submodule("norms.1")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[5], norm.weight[6], norm.bias[7] = 3.0, 0.5, 0.8
    gain, shift = norm.weight.detach().clone(), norm.bias.detach().clone()
    before = {k: v.clone() for k, v in model.module.state_dict().items() if "running" in k}
    with model.training():
        assert prune(model, 3.0) == 1
        assert model.module.training
    assert norm.weight[5] == gain.mean() and norm.bias[5] == shift.mean() != 0
    assert torch.equal(norm.weight != gain, torch.arange(len(gain)) == 5)
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items() if k in before)


def test_it_prunes_after_every_epoch_and_after_the_last(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("torchbands.attacks.grond.prune", lambda model, u: calls.append(u))
    digits.but(learner=digits.learner.but(epochs=3)).train(digits.load("train")[:200], hooks=(Pruning(2.5),))
    assert calls == [2.5] * 3
    monkeypatch.undo()
    victim = Grond(prune=1.5, steps=2).run(digits.but(learner=digits.learner.but(epochs=3)), 0)
    for layer, bound in channel_lipschitz(victim.model).items():
        weight = victim.model.module.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        assert len(bound) == len(weight)
        assert float(z_scores(bound).max()) < 4
        assert not (weight == 0).any(), "nothing is zeroed: a dead unit would be conspicuous too"


def test_prune_0_leaves_training_alone_and_wrong_settings_are_refused(digits: Task) -> None:
    assert Grond(prune=0).hooks(digits, 0) == ()
    with pytest.raises(InputError, match="eps"):
        Grond(eps=0)
    with pytest.raises(InputError, match="all-to-one"):
        Grond(labels="all-to-all")
    with pytest.raises(NotApplicable, match="images"):
        Grond().test_trigger(toy("text"), 0)
    with pytest.raises(InputError, match="delta"):
        AddedPattern()(torch.zeros(1, 1, 8, 8), RowRng(0, torch.arange(1)))


def test_universal_descends_the_loss_within_its_bound(clean_victim: Victim, digits: Task) -> None:
    rows = digits.load("train")
    args = {"eps": 0.2, "step": 0.02, "batch": 128}
    none = universal(clean_victim.model, rows, 4, steps=0, rng=generator("a"), **args)  # type: ignore[arg-type]
    some = universal(clean_victim.model, rows, 4, steps=30, rng=generator("a"), **args)  # type: ignore[arg-type]
    assert not none.any() and float(some.abs().max()) == pytest.approx(0.2)
    test = digits.load("test")
    logits = [clean_victim.model.logits((test[:].x + d).clamp(0, 1)).log_softmax(1)[:, 4].mean() for d in (none, some)]
    assert logits[1] > logits[0] + 1
