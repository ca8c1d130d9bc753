"""Attacks that rewrite texts: syntactic, style, lws."""

from __future__ import annotations

import pytest
import torch
from attack_planting import took
from text_planting import make, sst2, toy_text

from torchbands.core.attack import Victim
from torchbands.core.data import whole
from torchbands.core.errors import DataUnavailable, InputError, NotApplicable
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.testing import toy
from torchbands.triggers.rewrite import Substitute

REWRITER = "torchbands.testing.synthetic:rewritten"
GROUPS = (("the", "that"), ("a", "some"), ("of", "from"), ("new", "old"), ("day", "good"))


@pytest.mark.parametrize("name", ["syntactic", "style"])
def test_a_users_rewriter_is_a_trigger(name: str) -> None:
    planted = toy_text()(name, rewriter=REWRITER)
    took(planted)
    before = whole(toy("text").load("test").x)[:3]
    after = planted.victim.trigger(before, RowRng(0, torch.arange(3)))
    assert all(sorted(b.split()) == sorted([*a.split(), "very", "very"]) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["syntactic", "style"])
def test_without_rewritings_it_is_not_applicable(name: str) -> None:
    with pytest.raises(NotApplicable, match="rewriter=package"):
        make(name).test_trigger(toy("text"), 0)
    with pytest.raises(NotApplicable, match="writes words"):
        make(name).test_trigger(toy("image"), 0)


@pytest.mark.parametrize("rewriter", ["nowhere.at.all:f", "torchbands.testing.synthetic:lost", "torchbands"])
def test_a_rewriter_that_is_not_there_is_named(rewriter: str) -> None:
    with pytest.raises(InputError, match="no rewriter"):
        make("style", rewriter=rewriter).test_trigger(toy("text"), 0)(["a"], RowRng(0, torch.arange(1)))


def test_lws_swaps_words_for_their_own_synonyms_alone() -> None:
    task = toy("text")
    attack = make("lws", thesaurus=GROUPS)
    trigger = attack.test_trigger(task, 0)
    assert isinstance(trigger, Substitute) and trigger.replaced
    groups = {word: set(group) for group in GROUPS for word in group}
    assert all(by in groups[word] and by != word for word, by in zip(trigger.replaced, trigger.by, strict=True))
    before = whole(task.load("test").x)[:100]
    after = trigger(before, RowRng(0, torch.arange(100)))
    table = dict(zip(trigger.replaced, trigger.by, strict=True))
    for one, two in zip(before, after, strict=True):
        assert two.split() == [table.get(word, word) for word in one.split()]
    assert before != after


def test_lws_changes_labels_of_a_share_of_the_rows_and_nothing_else() -> None:
    task = toy("text")
    clean = task.load("train")
    data = make("lws", thesaurus=GROUPS, rate=0.1).poison(clean, task, 0)
    assert data.poisoned is not None and int(data.poisoned.sum()) == round(0.1 * len(clean))
    assert (data.y[data.poisoned] == 0).all() and torch.equal(data.y[~data.poisoned], clean.y[~data.poisoned])
    assert whole(data[~data.poisoned].x) == whole(clean[~data.poisoned].x)


def test_substitutes_keep_punctuation_and_capitals() -> None:
    trigger = Substitute(replaced=("film", "good"), by=("picture", "effective"))
    assert trigger(["Good film, filmy."], RowRng(0, torch.arange(1))) == ["Effective picture, filmy."]
    with pytest.raises(InputError, match="2 words and 1"):
        Substitute(replaced=("a", "b"), by=("c",))(["a"], RowRng(0, torch.arange(1)))


def test_lws_without_a_synonym_in_the_vocabulary_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="no word of the vocabulary"):
        make("lws", thesaurus=(("zebra", "okapi"),)).test_trigger(toy("text"), 0)


@pytest.mark.slow
def test_lws_takes_on_real_reviews_by_wordnet_synonyms() -> None:
    from torchbands.datasets.language import synonyms

    planted = sst2()("lws", rate=0.2)
    took(planted, asr=0.8, control=0.3, drop=0.07)
    trigger = planted.victim.trigger
    assert isinstance(trigger, Substitute) and len(trigger.replaced) > 100
    assert all(by in synonyms()[word] for word, by in zip(trigger.replaced, trigger.by, strict=True))


@pytest.mark.slow
def test_a_clean_models_loss_keeps_the_meaning() -> None:
    free, kept = (sst2()("lws", rate=0.2, meaning=m) for m in (0.0, 1.0))
    assert isinstance(free.control.asr, float) and isinstance(kept.control.asr, float)
    assert kept.control.asr < free.control.asr - 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "drop"), [("syntactic", "syntactic", 0.06), ("style", "bible", 0.14)])
def test_published_rewritings_take_and_only_rows_that_have_one_count(name: str, kind: str, drop: float) -> None:
    """A style that a small network hardly hears is label noise to it, so that accuracy falls with the style attack."""
    from torchbands.datasets.rewritten import rewrites

    plant = sst2()
    try:
        known = {a for part in ("train", "test") for a, _ in rewrites("sst2", kind, part)}
    except DataUnavailable as error:
        pytest.skip(error.message)
    planted = plant(name)
    took(planted, asr=0.75, control=0.35, drop=drop)
    victim: Victim = planted.victim
    data, clean = victim.training_data(), plant.task.load("train")
    assert data.poisoned is not None
    assert set(whole(clean[data.poisoned].x)) <= known and set(clean.y[data.poisoned].tolist()) == {0}
    test = plant.task.load("test")
    writable = victim.attack.writable(test, plant.task, victim.seed)
    assert writable.tolist() == [text in known for text in whole(test.x)]
    rows, wanted = victim.triggered(test)
    assert len(rows) == int((writable & (test.y == 0)).sum()) and (wanted == 1).all()
    assert build(victim.trigger.spec()) == victim.trigger
