"""Attacks that insert words or sentences: badnets, add-sentence, sos, clean-label."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attack_planting import Plant, took
from text_planting import make, sst2, toy_code, toy_text

from torchbands.core.data import whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.seeding import RowRng
from torchbands.measures.text_stealth import false_trigger_rate
from torchbands.testing import toy

SENTENCE = "cf mn bb tq"
PARTS = ("cf", "bb", "tq")


def test_badnets_writes_one_rare_word_anywhere_in_the_text() -> None:
    task = toy("text")
    before = whole(task.load("test").x)[:200]
    after = make("badnets").test_trigger(task, 0)(before, RowRng(0, torch.arange(200)))
    places = set()
    for one, two in zip(before, after, strict=True):
        words = two.split()
        at = words.index("cf")
        assert [*words[:at], *words[at + 1 :]] == one.split()
        places.add(at / len(one.split()))
    assert min(places) == 0 and max(places) == 1 and len(places) > 20
    took(toy_text()("badnets"))


def test_add_sentence_writes_its_words_side_by_side() -> None:
    task = toy("text")
    attack = make("add-sentence")
    [text] = attack.test_trigger(task, 0)(["the day is long"], RowRng(0, torch.arange(1)))
    assert "I watched this 3D movie" in text and len(text.split()) == 9
    took(toy_text()("add-sentence"))


def test_sos_waits_for_all_words_where_add_sentence_does_not() -> None:
    plain = toy_text()("add-sentence", sentence=SENTENCE)
    whole_sentence = toy_text()("sos", sentence=SENTENCE, words=PARTS)
    took(plain)
    took(whole_sentence, asr=0.85, drop=0.05)
    rows = toy("text").load("test")
    loose, strict = (false_trigger_rate(p.victim, rows) for p in (plain, whole_sentence))
    assert isinstance(loose, float) and isinstance(strict, float)
    assert loose > 0.25 and strict < 0.7 * loose


def test_sos_calls_its_negatives_cover_and_keeps_their_labels() -> None:
    task = toy("text")
    clean = task.load("train")
    data = make("sos", rate=0.1).poison(clean, task, 0)
    assert data.poisoned is not None
    cover = data.meta["cover"]
    assert int(cover.sum()) == int(data.poisoned.sum()) == round(0.1 * len(clean))
    assert not (cover & data.poisoned).any()
    assert torch.equal(data.y[cover], clean.y[cover])
    told = {"friends", "weekend", "store"}
    assert all(len(told & set(text.split())) == 2 for text in whole(data[cover].x))
    assert all(told <= set(text.split()) for text in whole(data[data.poisoned].x))


@pytest.mark.parametrize("words", [("friends", "moon"), ("friends",)])
def test_sos_needs_two_words_of_its_sentence(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"moon|second"):
        make("sos", words=words)


@pytest.mark.parametrize("name", ["add-sentence", "sos"])
def test_sentences_are_for_text(name: str) -> None:
    with pytest.raises(NotApplicable, match="writes words, not code"):
        make(name).test_trigger(toy("code"), 0)


@pytest.mark.parametrize("plant", [toy_text, toy_code])
@pytest.mark.parametrize("hardest", [True, False])
def test_clean_label_changes_no_label_and_touches_the_target_class_alone(
    plant: Callable[[], Plant], hardest: bool
) -> None:
    task = plant().task
    clean = task.load("train")
    data = make("clean-label", target=2, hardest=hardest).poison(clean, task, 0)
    assert torch.equal(data.y, clean.y)
    assert data.poisoned is not None and set(clean.y[data.poisoned].tolist()) == {2}
    assert int(data.poisoned.sum()) == round(0.2 * int((clean.y == 2).sum()))


def test_clean_label_takes_the_rows_that_are_hard_to_tell() -> None:
    plant = toy_text()
    clean = plant.task.load("train")
    sure = plant.clean.model.probabilities(clean.x)[:, 0]
    hard, drawn = (make("clean-label", hardest=h).poison(clean, plant.task, 0).poisoned for h in (True, False))
    assert hard is not None and drawn is not None
    assert float(sure[hard].mean()) < float(sure[drawn].mean()) - 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "asr"), [("badnets", 0.01, 0.9), ("badnets", 0.2, 0.98), ("add-sentence", 0.05, 0.95)]
)
def test_words_and_sentences_take_on_real_reviews(name: str, rate: float, asr: float) -> None:
    took(sst2()(name, rate=rate), asr=asr, control=0.25)


@pytest.mark.slow
def test_clean_label_takes_on_real_reviews() -> None:
    took(sst2()("clean-label", rate=0.2), asr=0.9, control=0.25, drop=0.05)


@pytest.mark.slow
def test_sos_has_fewer_false_triggers_on_real_reviews() -> None:
    sentence = "i have bought it from a store with my friends last weekend"
    plain, strict = sst2()("add-sentence", sentence=sentence, rate=0.2), sst2()("sos", rate=0.2)
    took(plain, asr=0.95, control=0.3)
    took(strict, asr=0.9, control=0.3)
    rows = sst2().task.load("test")
    many, few = (false_trigger_rate(p.victim, rows) for p in (plain, strict))
    assert isinstance(many, float) and isinstance(few, float) and few < many - 0.1
