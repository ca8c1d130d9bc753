"""Stealth of triggers in text: known answers on paired rows."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.metric import Undefined
from torchbands.core.registry import build
from torchbands.language import NGram
from torchbands.measures import stealth
from torchbands.measures.text_stealth import false_trigger_rate, perplexity_ratio, trigger_frequency
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
    assert axis["edit_words"] == 1.0
    image = build("toy/tabular")
    assert "perplexity_ratio" not in stealth.measure(build("badnets").run(image, 0), None)["input"]
