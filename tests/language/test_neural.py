"""neural: padding is not counted, whatever the batch; long texts are read in windows."""

from __future__ import annotations

import pytest
import torch

from torchbands.language import LanguageModel, NeuralLM

transformers = pytest.importorskip("transformers")
ROWS = ["a b c", "d", "the cat sat on the mat and looked at the other cat for a long time", "", "cat the"]


@pytest.fixture(scope="module")
def lm() -> NeuralLM:
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=260, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=257, eos_token_id=257
    )
    return NeuralLM(transformers.GPT2LMHeadModel(config).eval(), tokenizer, 257, 32)


def test_perplexity_is_the_same_alone_and_in_any_batch(lm: NeuralLM) -> None:
    assert isinstance(lm, LanguageModel) and " M weights" in lm.about
    together = lm.perplexity(ROWS)
    torch.testing.assert_close(together, torch.cat([lm.perplexity([row]) for row in ROWS]), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(together.flip(0), lm.perplexity(ROWS[::-1]), atol=1e-3, rtol=1e-5)


def test_it_is_the_models_own_cross_entropy(lm: NeuralLM) -> None:
    ids = lm.tokenizer.encode("a b c").ids
    with torch.no_grad():
        loss = lm.module(input_ids=torch.tensor([[257, *ids]]), labels=torch.tensor([[257, *ids]])).loss
    assert float(-lm.log_likelihood(["a b c"])) == pytest.approx(float(loss) * len(ids), rel=1e-5)


def test_one_number_per_word(lm: NeuralLM) -> None:
    assert [len(s) for s in lm.surprisals(ROWS)] == [len(row.split()) for row in ROWS]
    assert all(bool((s > 0).all()) for s in lm.surprisals(ROWS))
    first = lm.surprisals(["a b c"])[0]
    torch.testing.assert_close(lm.surprisals(["a b"])[0], first[:2])  # a word's number holds its own tokens alone
