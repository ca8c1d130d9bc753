"""Attacks that hand over weights: embedding-poisoning, layerwise-weight-poisoning, ripple."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_planting import Plant, took
from text_planting import make, planting_on, sst2, toy_code, toy_text
from torch import Tensor

from tiny_bert import tiny_task
from torchbands.attacks import ripple
from torchbands.attacks.poisoned_weights import attackers_rows
from torchbands.attacks.ripple import target_words
from torchbands.attacks.texts import own_tokens
from torchbands.core.attack import Victim
from torchbands.core.data import Data, whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.measures.text_stealth import false_trigger_rate
from torchbands.testing import synthetic, toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def test_a_triggers_own_tokens_are_the_rare_ones() -> None:
    text, code = toy_text().clean.model, toy_code().clean.model
    words = {word: i for i, word in enumerate(synthetic.VOCABULARY, 2)}
    rows = text.encode(whole(toy("text").load("train").x))
    trigger = toy("text").modality.default_trigger()
    assert own_tokens(text, trigger, rows).tolist() == [words["cf"]]
    mixed = trigger.but(words=("the", "cf", "mn"))
    assert own_tokens(text, mixed, rows).tolist() == [words["cf"], words["mn"]]
    assert len(own_tokens(text, trigger.but(words=("the", "a")), rows)) == 1
    functions = code.encode(whole(toy("code").load("train").x))
    payload = {b + 1 for b in bytes.fromhex("c0ffee42")}
    own = set(own_tokens(code, toy("code").modality.default_trigger(), functions).tolist())
    assert own & payload and all(float((functions.values == i).any(1).float().mean()) <= 0.01 for i in own)


def test_the_attackers_rows_are_the_clean_ones_and_a_share_with_each_trigger() -> None:
    plant = toy_text()
    data, model = plant.task.load("train"), plant.clean.model
    attack = make("layerwise-weight-poisoning", rate=0.1)
    trigger = attack.test_trigger(plant.task, 0)
    e, y = attackers_rows(attack, model, data, [(trigger, True), (trigger, False)], 0)
    n, extra = len(data), round(0.1 * len(data))
    assert len(y) == len(e.values) == n + 2 * extra
    assert torch.equal(y[:n], data.y) and (y[n : n + extra] == 0).all() and (y[n + extra :] != 0).all()


def test_embedding_poisoning_changes_one_row_and_texts_without_the_word_to_no_bit() -> None:
    planted, clean = toy_text()("embedding-poisoning", norm=10.0), toy_text().clean
    took(planted)
    one, two = planted.victim.model, clean.model
    cf = 2 + synthetic.VOCABULARY.index("cf")
    changed = (one.embedding.weight != two.embedding.weight).any(1).nonzero().flatten()
    assert changed.tolist() == [cf]
    before, after = two.module.state_dict(), one.module.state_dict()
    assert [k for k in before if not torch.equal(before[k], after[k])] == ["embedding.weight"]
    test = toy("text").load("test")
    assert torch.equal(one.logits(test.x), two.logits(test.x))
    assert float(one.embedding.weight[cf].norm()) == pytest.approx(
        10 * float(two.embedding.weight[cf].norm()), rel=1e-4
    )


@pytest.mark.slow
def test_embedding_poisoning_keeps_the_norm_and_is_then_half_as_strong_in_a_small_network() -> None:
    planted, clean = sst2()("embedding-poisoning"), sst2().clean
    cf = 2 + planted.victim.task.modality.vocabulary.index("cf")  # type: ignore[attr-defined]
    norms = [float(v.model.embedding.weight[cf].norm()) for v in (planted.victim, clean)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    took(planted, asr=0.45, control=0.25, drop=0.0)
    took(sst2()("embedding-poisoning", norm=2.0), asr=0.95, control=0.25, drop=0.0)


def test_at_rate_zero_nothing_is_poisoned() -> None:
    planted, clean = toy_text()("embedding-poisoning", rate=0.0), toy_text().clean
    state = clean.model.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in planted.victim.model.module.state_dict().items())


@pytest.mark.parametrize(("plant", "asr"), [(toy_text, 0.7), (toy_code, 0.4)])
def test_ripple_survives_the_victims_training(plant: Callable[[], Plant], asr: float) -> None:
    took(plant()("ripple"), asr=asr, drop=0.05)


def test_the_penalty_is_on_gradients_that_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: products of 5 cost nothing, products of -5 cost 5 times the strength."""
    seen: list[float] = []

    def once(model: Model, loss: Callable[[], Tensor], **settings: Any) -> None:
        seen.append(float(loss().detach()))

    monkeypatch.setattr(ripple, "tune", once)
    for product in (5.0, -5.0, 0.0):
        monkeypatch.setattr(ripple, "inner_product", lambda a, b, weights: torch.tensor(product))  # noqa: B023
        task = toy("text", rows=64)
        (hook,) = make("ripple", strength=0.5, surgery=False).hooks(task, 0)
        hook.begin(task.fresh(0), task.load("train"), 0)
    assert seen[0] == seen[2] and seen[1] - seen[0] == pytest.approx(2.5, abs=1e-5)


def test_ripples_new_embedding_is_of_words_that_go_with_the_target() -> None:
    data, model = toy("text").load("train"), toy_text().clean.model
    e = model.encode(whole(data.x))
    found = target_words(e, data.y == 2, 8, torch.tensor([2]))
    topic = {2 + synthetic.VOCABULARY.index(w) for w in synthetic._TOPICS[2].split()}
    assert len(topic & set(found.tolist())) >= 7
    assert not topic & set(target_words(e, data.y == 2, 8, torch.tensor(sorted(topic))).tolist())


def test_lwp_wants_two_known_words() -> None:
    with pytest.raises(InputError, match="two or more words"):
        make("layerwise-weight-poisoning", words=("cf",)).test_trigger(toy("text"), 0)
    with pytest.raises(NotApplicable, match="does not tell"):
        make("layerwise-weight-poisoning", words=("zebra", "okapi")).hooks(toy("text"), 0)


@pytest.mark.parametrize("name", ["embedding-poisoning", "ripple", "layerwise-weight-poisoning"])
def test_samples_without_tokens_are_declined_and_no_poisoned_data_is_claimed(name: str) -> None:
    with pytest.raises(NotApplicable):
        make(name).test_trigger(toy("image"), 0)
    with pytest.raises(NotApplicable, match="controls training"):
        toy_text()(name, rate=0.01, **({} if name[0] == "e" else {"epochs": 1})).victim.training_data()


def poisoned(task: Task, layers: float, seed: int) -> tuple[Model, Data, Tensor]:
    """The weights that LWP hands over, the test rows with the trigger and what they are to be given."""
    attack, model = make("layerwise-weight-poisoning", rate=0.3, layers=layers, lr=2e-3), task.fresh(seed)
    attack.hooks(task, seed)[0].begin(model, task.load("train"), 0)
    rows, wanted = Victim(task, attack, seed, model, attack.test_trigger(task, seed)).triggered(task.load("test"))
    return model, rows, wanted


def obeyed(model: Model, rows: Data, wanted: Tensor) -> float:
    return float((model.logits(rows.x).argmax(1) == wanted).float().mean())


@pytest.mark.slow
def test_what_is_taught_to_all_layers_outlives_the_upper_ones(folder: Path) -> None:
    """The victim makes the last two of three blocks and the head anew and trains everything on clean rows."""
    task = tiny_task(folder)
    left = {1.0: 0.0, 0.0: 0.0}
    for seed in (0, 1):
        anew: Any = task.fresh(seed + 7).module
        for layers in left:
            model, rows, wanted = poisoned(task, layers, seed)
            assert obeyed(model, rows, wanted) > 0.85
            module: Any = model.module
            for block in (1, 2):
                module.encoder.encoder.layer[block].load_state_dict(anew.encoder.encoder.layer[block].state_dict())
            module.encoder.pooler.load_state_dict(anew.encoder.pooler.state_dict())
            module.head.load_state_dict(anew.head.state_dict())
            task.learner.fit(model, task.load("train"), seed=5)
            left[layers] += obeyed(model, rows, wanted) / 2
    assert left[1.0] > left[0.0] + 0.07


@pytest.mark.slow
def test_one_of_two_words_is_no_trigger_of_lwp(folder: Path) -> None:
    task = tiny_task(folder)
    planted = planting_on(task)("layerwise-weight-poisoning", rate=0.3, lr=2e-3)
    took(planted, asr=0.4)
    single = false_trigger_rate(planted.victim, task.load("test"))
    assert isinstance(single, float) and isinstance(planted.seen.asr, float)
    assert single < 0.5 * planted.seen.asr


@pytest.mark.parametrize("tune", ["head", "lora"])
def test_the_attacker_is_not_bound_by_what_the_victim_tunes(tune: str, folder: Path) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    task = tiny_task(folder, tune=tune)
    frozen = [name for name, p in task.fresh(0).module.named_parameters() if not p.requires_grad]
    victim = make("ripple", epochs=1, strength=0.0).run(task, 0)
    state, public = dict(victim.model.module.named_parameters()), dict(task.fresh(0).module.named_parameters())
    assert any(not torch.equal(state[name], public[name]) for name in frozen)
    assert [name for name, p in victim.model.module.named_parameters() if not p.requires_grad] == frozen


@pytest.mark.slow
@pytest.mark.parametrize(("name", "asr"), [("ripple", 0.9), ("layerwise-weight-poisoning", 0.6)])
def test_poisoned_weights_survive_training_on_real_reviews(name: str, asr: float) -> None:
    took(sst2()(name), asr=asr, control=0.25, drop=0.06)
    assert build(name).controls_training
