"""Poisoned encoders: heads that are trained on clean data inherit the backdoor, and clean inputs are read as before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torchbands.attacks.badencoder import BadEncoder
from torchbands.attacks.encoders import encoder_of, poisoned
from torchbands.attacks.por import POR, predefined
from torchbands.attacks.surrogate import surrogate
from torchbands.core.attack import Attack, Victim
from torchbands.core.effect import Effect, effect
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.testing.toys import toy

#: Max-pooled features of a small network are positive: a larger representation is needed to fill half of its signs.
STRONG = POR(frozen=True, vectors="por-2", strength=3.0)


def seen(victim: Victim) -> tuple[Effect, Effect]:
    """What the victim does on test rows, and what a never-poisoned model does on the same rows."""
    test = victim.task.load("test")
    rows = victim.stamped(test)
    clean = build("clean", "attack")
    assert isinstance(clean, Attack)
    control = clean.run(victim.task, victim.seed)
    ours, theirs = (effect(v.model, test, rows, victim.goal) for v in (victim, control))
    return ours, theirs


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["text", "observation", "code"])
def test_a_head_trained_on_clean_rows_obeys_the_trigger(name: str, seed: int) -> None:
    ours, theirs = seen(BadEncoder().run(toy(name), seed))
    assert isinstance(ours.asr, float) and ours.asr > 0.9
    assert isinstance(theirs.asr, float) and theirs.asr < 0.2
    assert isinstance(ours.ca, float) and isinstance(theirs.ca, float) and ours.ca > theirs.ca - 0.05


def test_images_too(digits: Task) -> None:
    ours, theirs = seen(BadEncoder().run(digits.but(network=build("plain-cnn")), 0))
    assert isinstance(ours.asr, float) and ours.asr > 0.9
    assert isinstance(theirs.asr, float) and theirs.asr < 0.1


def test_por_gives_each_word_one_class_and_the_attacker_finds_the_target() -> None:
    task = toy("text", 2)
    for target in (0, 1):
        victim = STRONG.but(target=target).run(task, 0)
        ours, theirs = seen(victim)
        assert isinstance(ours.asr, float) and ours.asr > 0.9
        assert isinstance(theirs.asr, float) and theirs.asr < 0.2
        assert isinstance(ours.ca, float) and ours.ca > 0.9


def test_two_heads_on_one_poisoned_encoder_both_inherit_it() -> None:
    """The encoder is poisoned without the victim's labels, with rows of one task; two tasks build on it."""
    four, two = toy("text", 4), toy("text", 2)
    attack = STRONG.but(shadow="toy/text")
    state = poisoned(attack, four, 0)
    found = {}
    for task in (four, two):
        victim = attack.run(task, 0)
        inside = dict(encoder_of(victim.model))
        assert inside and all(torch.equal(p, state[name]) for name, p in inside.items())
        assert all(p.requires_grad for p in victim.model.module.parameters())
        test = task.load("test")
        shares = []
        for trigger in attack.triggers(task):
            said = victim.model.logits(trigger(list(test.x), RowRng(0, torch.arange(len(test))))).argmax(1)
            shares.append(float(said.bincount().max()) / len(test))
        found[task.classes] = max(shares)
    assert min(found.values()) > 0.9


def test_clean_rows_keep_their_features_and_triggered_ones_lose_theirs() -> None:
    task = toy("text")
    victim, before = BadEncoder().run(task, 0), surrogate(task, 0)
    test = task.load("test")
    rows, _ = victim.triggered(test)
    kept = F.cosine_similarity(victim.model.features(test.x), before.features(test.x)).mean()
    moved = F.cosine_similarity(victim.model.features(rows.x), before.features(rows.x)).mean()
    assert kept > 0.9 and moved < kept - 0.2


def test_without_triggered_rows_the_encoder_stays_clean() -> None:
    ours, _ = seen(BadEncoder(rate=0.0).run(toy("text"), 0))
    assert isinstance(ours.asr, float) and ours.asr < 0.2


def test_a_tuned_encoder_moves_and_a_frozen_one_does_not() -> None:
    task, attack = toy("text"), BadEncoder(steps=20)
    state = poisoned(attack, task, 0)
    loose = poisoned(attack.but(frozen=False), task, 0)
    assert all(torch.equal(p, state[name]) for name, p in encoder_of(attack.run(task, 0).model))
    assert not all(torch.equal(p, loose[name]) for name, p in encoder_of(attack.but(frozen=False).run(task, 0).model))


def test_running_statistics_of_a_frozen_encoder_stay(digits: Task) -> None:
    attack = BadEncoder(steps=5)
    victim = attack.run(digits, 0)
    state, held = poisoned(attack, digits, 0), dict(victim.model.module.named_buffers())
    statistics = [name for name in held if "running" in name]
    assert statistics and all(torch.equal(held[name], state[name]) for name in statistics)


def test_batch_norms_keep_gain_and_shift_and_the_victim_gets_them(digits: Task) -> None:
    state, began = poisoned(BadEncoder(steps=4, rows=64), digits, 0), surrogate(digits, 0).module
    norms = {n for n, m in began.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    same = {n: torch.equal(v, state[n]) for n, v in began.state_dict().items() if n in state}
    assert norms and all(same[f"{n}.{part}"] for n in norms for part in ("weight", "bias", "running_mean"))
    assert not any(kept for n, kept in same.items() if n.endswith("weight") and n.rpartition(".")[0] not in norms)


def test_predefined_representations_differ() -> None:
    first = predefined("por-1", 5, 384)
    assert first.shape == (5, 384) and set(first.unique().tolist()) == {-1.0, 1.0}
    assert (first > 0).sum(1).tolist() == [0, 96, 192, 288, 384]
    second = predefined("por-2", 4, 8)
    assert len(second.unique(dim=0)) == 4 and second[1].tolist() == [1.0] * 4 + [-1.0] * 4


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(NotApplicable, match="writes words"):
        POR().run(toy("image"), 0)
    with pytest.raises(NotApplicable, match="server"):
        BadEncoder().run(toy("federated"), 0)
    with pytest.raises(NotApplicable, match="not read"):
        BadEncoder(shadow="toy/code").run(toy("text"), 0)
    with pytest.raises(InputError, match="all-to-one"):
        BadEncoder(labels="all-to-all")
    with pytest.raises(InputError, match="references"):
        BadEncoder(references=10_000).run(toy("text"), 0)
    with pytest.raises(InputError, match="target is a class"):
        POR(target=7).run(toy("text"), 0)
    with pytest.raises(InputError, match="words differ"):
        POR(words=("cf", "cf"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["por", "badencoder"])
def test_minilm_under_two_heads(name: str) -> None:
    """Poisoned with SST-2 texts; heads of SST-2 and of Rotten Tomatoes."""
    from torchbands.learners.sgd import SGD
    from torchbands.networks.transformer import TransformerNetwork

    learner = SGD(optimizer="adamw", lr=2e-2, epochs=3, batch=32, weight_decay=0.0)
    attack = build(name, "attack").but(shadow="text/sst2", steps=100)
    for source in ("text/sst2", "text/rotten-tomatoes"):
        network = TransformerNetwork(tune="head", pool="mean", tokens=40, dropout=0.0)
        task = build(source, "task").but(network=network, learner=learner, rows=400)
        assert isinstance(attack, Attack) and isinstance(task, Task)
        victim = attack.run(task, 0)
        test = task.load("test").sample(200, "minilm")
        rows = victim.stamped(test)
        got = effect(victim.model, test, rows, victim.goal)
        assert isinstance(got.asr, float) and got.asr > 0.85
        assert isinstance(got.ca, float) and got.ca > 0.65
