"""Stealth of triggers in text: known answers on paired rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.metric import Undefined
from torchbands.core.registry import build
from torchbands.datasets import cache
from torchbands.language import NGram
from torchbands.measures import stealth, text_stealth
from torchbands.measures.text_stealth import (
    added_grammar_errors,
    false_trigger_rate,
    perplexity_ratio,
    sentence_similarity,
    trigger_frequency,
)
from torchbands.report.glossary import TERMS
from torchbands.triggers.text import InsertWords

TEXTS = ["the film is good .", "the film is bad .", "the plot of the film is thin ."]


@pytest.fixture(scope="module")
def planted() -> Victim:
    return build("badnets").run(build("toy/text"), 0)


def test_an_unchanged_text_is_as_fluent_and_a_rare_word_is_not() -> None:
    lm = NGram.fit(TEXTS * 5)
    assert perplexity_ratio(lm, TEXTS, TEXTS) == pytest.approx(1.0)
    after = [text + " cf" for text in TEXTS]
    together = perplexity_ratio(lm, TEXTS, after)
    alone = [perplexity_ratio(lm, [a], [b]) for a, b in zip(TEXTS, after, strict=True)]
    assert isinstance(together, float) and together > 5
    assert together == pytest.approx(float(torch.tensor(alone).log().mean().exp()), rel=1e-4)


def test_frequency_is_of_the_rarest_word_added() -> None:
    lm = NGram.fit(TEXTS)
    total = sum(len(text.split()) for text in TEXTS)
    assert trigger_frequency(lm, TEXTS[:1], ["the film cf is good ."]) == 0.0
    assert trigger_frequency(lm, TEXTS[:1], ["the film thin the is good ."]) == pytest.approx(1e6 / total)
    assert isinstance(trigger_frequency(lm, TEXTS, TEXTS), Undefined)


def test_a_backdoor_that_one_of_two_words_opens_triggers_falsely(planted: Victim) -> None:
    rows = planted.task.load("test")[torch.arange(200)]
    alone = false_trigger_rate(planted, rows)
    assert isinstance(alone, Undefined) and "parts" in alone.reason
    pair = InsertWords(words=(*planted.trigger.words, "the"))  # type: ignore[attr-defined]
    loose = Victim(**{**planted.__dict__, "trigger": pair})
    rate = false_trigger_rate(loose, rows)
    assert isinstance(rate, float) and 0.3 < rate < 0.7  # "cf" opens it, "the" does not


def test_the_input_axis_of_text_holds_them(planted: Victim) -> None:
    axis = stealth.measure(planted, None)["input"]
    ratio = axis["perplexity_ratio"]
    assert isinstance(ratio, float) and ratio > 1.2
    assert axis["edit_words"] == 1.0 and axis["added_words"] == 1.0
    for name in ("added_grammar_errors", "sentence_similarity", "edit_words", "added_words"):
        assert name in axis and name in TERMS
    image = build("toy/tabular")
    assert "perplexity_ratio" not in stealth.measure(build("badnets").run(image, 0), None)["input"]


def test_grammar_errors_are_those_that_the_trigger_adds() -> None:
    pytest.importorskip("harper")
    before = ["The film is good.", "She has a cat."]
    assert added_grammar_errors(before, before) == 0.0
    assert added_grammar_errors(before, ["The the film is good.", "She has an cat."]) == 1.0
    assert added_grammar_errors(["The the film is good."], ["The film is good."]) == -1.0
    assert isinstance(added_grammar_errors([], []), Undefined)


def test_without_a_checker_or_an_encoder_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    text_stealth._linter.cache_clear()
    monkeypatch.setattr(text_stealth.importlib, "import_module", missing)
    none = added_grammar_errors(["never checked before, one"], ["never checked before, two"])
    assert isinstance(none, Undefined) and "pip install 'torchbands[text]'" in none.reason
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    none = sentence_similarity(["a"], ["b"], fetch=False)
    assert isinstance(none, Undefined) and "not in the data cache" in none.reason


@pytest.mark.slow
def test_similarity_knows_what_a_change_means_and_not_the_batch() -> None:
    near = sentence_similarity(["the film is good ."], ["the movie is good ."])
    far = sentence_similarity(["the film is good ."], ["my printer is out of paper ."])
    assert isinstance(near, float) and isinstance(far, float) and near > 0.8 and far < 0.4
    assert sentence_similarity(TEXTS, TEXTS) == pytest.approx(1.0, abs=1e-5)
    from torchbands.language.sentences import sentence_vectors

    together = sentence_vectors([*TEXTS, "a much longer text , " * 20])
    alone = torch.cat([sentence_vectors([text]) for text in TEXTS])
    torch.testing.assert_close(together[: len(TEXTS)], alone, atol=1e-4, rtol=1e-4)
