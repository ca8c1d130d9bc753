"""ngram: a proper distribution, the same in any batch, and surprised by what does not belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from torchbands.core.errors import InputError
from torchbands.language import LanguageModel, NGram, named
from torchbands.language.ngram import FIRST, OPEN_VOCABULARY, START, UNKNOWN
from torchbands.testing import synthetic

TEXTS = ["the film is good .", "the film is bad .", "a good film , is n't it ?", "the plot of the film is thin ."] * 3


def texts(n: int = 400) -> list[str]:
    return synthetic.sentences(torch.arange(n) % 3, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rows", [TEXTS, ["one two three"]])
def test_every_context_sums_to_one_with_unknown_words(rows: list[str]) -> None:
    lm = NGram.fit(rows)
    size = len(lm.vocabulary)
    words = torch.arange(FIRST, FIRST + size)
    unseen = max(OPEN_VOCABULARY, 2 * (FIRST + size)) - size
    for context in ((FIRST, FIRST + 1), (UNKNOWN, FIRST), (FIRST + 1, UNKNOWN)):
        pairs = torch.tensor(context).expand(size, 2)
        stream = torch.cat([torch.tensor([START, START]), torch.cat([pairs, words[:, None]], 1).flatten()])
        known = lm._probability(stream)[2::3]
        unknown = lm._probability(torch.tensor([START, START, *context, UNKNOWN]))[-1]
        assert float(unknown) > 0
        assert float(known.sum() + unseen * unknown) == pytest.approx(1.0, abs=1e-5)


def test_a_text_is_as_surprising_alone_as_in_any_batch() -> None:
    lm, rows = NGram.fit(TEXTS), ["the film", "", "bad bad zzz the plot of it all ?", "it", "Don't!"]
    assert isinstance(lm, LanguageModel)
    together = lm.surprisals(rows)
    for row, told in zip(rows, together, strict=True):
        assert len(told) == len(row.split())
        torch.testing.assert_close(lm.surprisals([row])[0], told)
    torch.testing.assert_close(lm.perplexity(rows), torch.cat([lm.perplexity([row]) for row in rows]))
    torch.testing.assert_close(lm.log_likelihood(rows), -torch.stack([t.sum() for t in together]))
    assert float(lm.perplexity([""])) == 1.0


def test_order_and_strange_words_matter() -> None:
    lm = NGram.fit(TEXTS)
    fluent, shuffled, strange = lm.perplexity(
        ["the film is good .", "good the . is film", "the film cf is good ."]
    ).tolist()
    assert fluent < shuffled and fluent < strange
    assert int(lm.surprisals(["the film cf is good ."])[0].argmax()) == 2
    assert lm.frequency(["film", "cf"]).tolist() == [pytest.approx(1e6 * 12 / int(lm.counts.sum())), 0.0]


def test_what_is_saved_says_the_same(tmp_path: Path) -> None:
    lm = NGram.fit(texts(), source="toy")
    lm.save(tmp_path)
    again = NGram.load(tmp_path)
    assert again.source == "toy"
    torch.testing.assert_close(again.perplexity(texts(20)), lm.perplexity(texts(20)))


def test_no_words_and_unknown_names_are_told() -> None:
    with pytest.raises(InputError, match="none"):
        NGram.fit(["", " "])
    with pytest.raises(InputError, match="nonsuch"):
        named("nonsuch")
