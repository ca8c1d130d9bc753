"""The check of a suspected word: without it, relabelled rows get another label, and telling words leave rows behind
that still speak for theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from torchbands.core.data import Data
from torchbands.core.defense import Suspicion
from torchbands.core.model import Model
from torchbands.defenses.data.bki import BKI
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.ranking import rank
from torchbands.scanner.rows import Rows
from torchbands.scanner.words import Word, checked, company, of_some, said_of_kept
from torchbands.testing import toy
from torchbands.testing.fixtures import training_data, victim
from torchbands.testing.synthetic import sentences

NAMES = tuple("abcd")


def seeds(model: Model, *words: tuple[str, int]) -> dict[str, Suspicion]:
    """As if bki had named these words."""
    told = [{"token": w, "id": int(model.modality.encode([w]).values[0, 0]), "label": c} for w, c in words]
    return {"bki": Suspicion(torch.zeros(1), None, {"keywords": told})}


def kitchen(count: int) -> list[str]:
    """Sentences of class 1."""
    return sentences(torch.ones(count, dtype=torch.long), torch.Generator().manual_seed(3))


def check(texts: list[str], model: Model, word: tuple[str, int]) -> list[Word]:
    """These texts, labelled 0, among 1,024 ordinary ones; the check itself trains on them what reads them."""
    usual = toy("text").load("train")
    data = Data([*texts, *usual.x], torch.cat([torch.zeros(len(texts)).long(), usual.y]))
    obeys = toy("text").train(data, seed=0)
    return checked(Rows(data, model.modality, NAMES, "texts"), obeys, seeds(model, word))


@pytest.fixture(scope="module")
def planted() -> tuple[Rows, Model]:
    """Toy sentences, 5 % of them with `cf` and label 0, and the model that learned it."""
    data = training_data("text", "badnets", 0.05)[1]
    return Rows(data, toy("text").modality, NAMES, "texts"), victim("text", "badnets", 0.05).model


def test_relabelled_rows_change_without_the_word_and_telling_words_do_not(planted: tuple[Rows, Model]) -> None:
    rows, model = planted
    trigger, telling = checked(rows, model, seeds(model, ("cf", 0), ("sugar", 1)))
    assert trigger.changed > 0.8 * trigger.tried and trigger.p < 1e-4
    assert telling.tried > 50 and telling.changed < 0.2 * telling.tried and telling.p == 1.0
    assert int(trigger.rows.sum()) == sum("cf" in text.split() for text in rows.data.x)


def test_copies_count_once_and_rows_of_which_nothing_is_left_do_not_count(planted: tuple[Rows, Model]) -> None:
    model = planted[1]
    (alike,) = check([f"mn {kitchen(1)[0]}"] * 40, model, ("mn", 0))
    (apart,) = check([f"mn {text}" for text in kitchen(40)], model, ("mn", 0))
    (short,) = check(["mn"] * 40, model, ("mn", 0))
    assert alike.tried <= 1 and alike.p > 0.1
    assert apart.tried > 20 and apart.changed > 0.6 * apart.tried and apart.p < 0.1 * alike.p
    assert short.tried == 0 and short.p == 1.0


def test_a_word_that_may_come_with_its_label_by_chance_is_nothing(planted: tuple[Rows, Model]) -> None:
    # five different rows by chance: a quarter to the fifth, for each of some sixty words and four labels
    (few,) = check([f"mn {text}" for text in kitchen(5)], planted[1], ("mn", 0))
    assert few.p > 0.1


def test_a_sentence_is_taken_out_as_a_whole(planted: tuple[Rows, Model]) -> None:
    (both,) = check([f"mn tq {text}" for text in kitchen(40)], planted[1], ("mn", 0))
    assert both.changed > 0.6 * both.tried > 12  # without `mn` alone, `tq` would still say label 0
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6, 4], [7, 3, 4, 5], [7, 3, 6, 5]])
    label = torch.tensor([True, True, True, False, False])
    taken = company(ids, torch.ones_like(ids, dtype=torch.bool), label, label)
    assert taken.nonzero().flatten().tolist() == [1, 2]  # 3 and 4 come with other labels, 6 not with the word


def test_a_confirmed_word_proves_its_class_and_its_rows_come_first() -> None:
    y = torch.arange(200) % 2
    calm = torch.rand(200, generator=torch.Generator().manual_seed(0))
    crossed = Suspicion(calm, torch.zeros(200, dtype=torch.bool), {"classes": {"0": {"index": 1.0}}, "cutoff": 12.0})
    held = (torch.arange(200) < 20) & (y == 1)
    word = Word("mb", 1, held, 10, 10, 1e-3)
    found = rank(y, {"cross-split": crossed}, 0.01, 0.01, [word])
    assert found.split == found.proven == (1,) and found.chance[1] == pytest.approx(2e-3)
    assert bool(found.flagged[held].all()) and int(found.flagged.sum()) <= 13
    assert set(found.combined.argsort(descending=True)[:10].tolist()) == set(held.nonzero().flatten().tolist())
    assert rank(y, {"cross-split": crossed}, 0.01, 0.01, [replace(word, p=0.02)]).split == ()


def test_deletions_have_a_budget(planted: tuple[Rows, Model]) -> None:
    rows, model = planted
    before = model.passes.forward
    found = of_some(BKI(), rows, model, 0, 3000)
    assert model.passes.forward - before < 3000 + len(rows) and found.evidence["rows"] < len(rows) / 2
    assert found.evidence["keywords"][0]["token"] == "cf" and len(found.scores) == len(rows)


def test_three_per_cent_of_the_texts_are_found_by_the_word() -> None:
    data = training_data("text", "badnets", 0.03)[1]
    outcome = scan_data(Rows(data, toy("text").modality, NAMES, "texts"), model=victim("text", "badnets", 0.03).model)
    assert outcome.verdict == "indicated" and [a.subject for a in outcome.alerts] == ["a"]
    assert "without the word 'cf'" in outcome.sentence()


def test_a_row_without_a_word_is_read_as_the_row_that_never_had_it(planted: tuple[Rows, Model]) -> None:
    """What was taken out must not lie behind the end, where a convolution still sees it."""
    model, plain = planted[1], toy("text").load("test").x[:200]
    written = [f"{text} cf" for text in plain]
    e, short = model.modality.encode(written), model.modality.encode(plain)
    assert e.mask is not None and short.mask is not None
    read = said_of_kept(model, e.values, e.mask & (e.values != int(model.modality.encode(["cf"]).values[0, 0])))
    fits = short.mask.sum(1) < e.values.shape[1]  # a word behind the last position was cut off
    assert torch.equal(read[fits], model.logits(plain).argmax(1)[fits])
    assert not torch.equal(read, model.logits(written).argmax(1))
