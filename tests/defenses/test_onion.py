"""onion: the inserted word is deleted and the backdoor does not fire; ordinary words stay."""

from __future__ import annotations

import pytest
import torch

from torchbands.bench import judge
from torchbands.core.attack import Victim
from torchbands.core.errors import NotApplicable
from torchbands.core.registry import build
from torchbands.defenses.inputs._deletions import deletions, without
from torchbands.defenses.inputs.onion import ONION, FittedONION
from torchbands.language import NGram
from torchbands.measures.effectiveness import auroc
from torchbands.testing import synthetic


@pytest.fixture(scope="module")
def planted() -> Victim:
    return build("badnets").run(build("toy/text"), 0)


@pytest.fixture(scope="module")
def fitted(planted: Victim) -> FittedONION:
    made = ONION().fit(planted.model, planted.task.load("clean"))
    assert isinstance(made, FittedONION)
    return made


def test_the_backdoor_fires_without_and_not_with_the_defense(planted: Victim, fitted: FittedONION) -> None:
    test = planted.task.load("test")
    triggered, wanted = planted.triggered(test)
    model = planted.model
    assert float((model.logits(triggered.x).argmax(1) == wanted).float().mean()) > 0.9
    assert float((model.logits(fitted.correct(triggered.x)).argmax(1) == wanted).float().mean()) < 0.1
    before, after = model.logits(test.x).argmax(1) == test.y, model.logits(fitted.correct(test.x)).argmax(1) == test.y
    assert float(after.float().mean()) > float(before.float().mean()) - 0.04
    assert auroc(fitted.score(triggered.x), fitted.score(test.x)) > 0.95  # type: ignore[operator]


def test_the_row_of_a_table_says_which_language_model_read_how_much(planted: Victim) -> None:
    clean = planted.task.load("clean").sample(60, "rows")
    assert ONION().fit(planted.model, clean).about == "trigram of 30 clean rows"
    record = judge(planted, ONION())
    rows = record["cost"]["clean_samples"]
    assert record["about"] == f"trigram of {rows // 2} clean rows"


def test_quiet_where_nothing_is_planted() -> None:
    victim = build("clean").run(build("toy/text"), 0)
    test = victim.task.load("test")
    fitted = ONION().fit(victim.model, victim.task.load("clean"))
    corrected = fitted.correct(test.x)
    words = sum(len(row.split()) for row in test.x)
    assert sum(len(row.split()) for row in corrected) > 0.85 * words
    half = len(test) // 2
    assert auroc(fitted.score(test.x[:half]), fitted.score(test.x[half:])) == pytest.approx(0.5, abs=0.1)


def test_a_score_does_not_depend_on_the_batch(planted: Victim, fitted: FittedONION) -> None:
    rows = [*planted.task.load("test").x[:20], "cf", ""]
    together = fitted.score(rows)
    torch.testing.assert_close(together, torch.cat([fitted.score([row]) for row in rows]))
    torch.testing.assert_close(together.flip(0), fitted.score(rows[::-1]))


def test_a_text_never_loses_its_last_word(fitted: FittedONION) -> None:
    assert fitted.correct(["cf", "", "zz"]) == ["cf", "", "zz"]
    assert fitted.score(["cf"]).tolist() == [0.0]
    found = deletions(fitted.lm, ["cf mn bb"], None)
    assert len(without(["cf mn bb"], found, -1e9)[0].split()) == 1


def test_late_words_of_long_texts_are_not_deleted_wholesale() -> None:
    y = torch.arange(600) % 3
    rows = synthetic.sentences(y, torch.Generator().manual_seed(1))
    lm, long = NGram.fit(rows[:300]), [" ".join(rows[300 + 30 * i : 330 + 30 * i]) for i in range(10)]
    found = deletions(lm, long, None)
    lengths = torch.tensor([len(text.split()) for text in long])[found.row]
    early, late = found.drop[found.word < lengths / 2], found.drop[found.word >= lengths / 2]
    bar = float(early.quantile(0.95))
    assert 0.02 < float((late > bar).float().mean()) < 0.1


def test_the_shortlist_deletes_what_trying_every_word_deletes(planted: Victim, fitted: FittedONION) -> None:
    test = planted.task.load("test")
    rows = [*test.x[:150], *planted.triggered(test)[0].x[:150]]
    every = FittedONION(fitted.lm, None, fitted.log, fitted.threshold)
    assert [a == b for a, b in zip(fitted.correct(rows), every.correct(rows), strict=True)].count(False) == 0
    same = torch.isclose(fitted.score(rows), every.score(rows), rtol=1e-4)
    assert float(same.float().mean()) > 0.98  # what is far below the bar may differ


def test_saved_and_loaded_it_says_the_same(planted: Victim, fitted: FittedONION) -> None:
    again = ONION().restore(planted.model, *fitted.state())
    rows = planted.task.load("test").x[:20]
    torch.testing.assert_close(again.score(rows), fitted.score(rows))
    assert again.correct(rows) == fitted.correct(rows)


def test_only_words_can_be_judged() -> None:
    task = build("toy/code")
    model = build("clean").run(task, 0).model
    with pytest.raises(NotApplicable, match="no words"):
        ONION().fit(model, task.load("clean"))
