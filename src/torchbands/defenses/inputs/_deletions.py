"""Change in perplexity when single words of a text are deleted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from torchbands.language import LanguageModel

#: Texts whose words are ranked together.
TOGETHER = 512


class Deletions(NamedTuple):
    """(D,) text, (D,) word in it, and (D,) perplexity with the word minus without it."""

    row: Tensor
    word: Tensor
    drop: Tensor


def deletions(lm: LanguageModel, texts: list[str], shortlist: int | None, *, log: bool = False) -> Deletions:
    """Delete each of the most surprising words of each text, one at a time; None: every word.

    Texts of fewer than two words have no deletions. log: the difference of log-perplexities.
    """
    parts = [_some(lm, texts[i : i + TOGETHER], i, shortlist, log) for i in range(0, len(texts), TOGETHER)]
    none = Deletions(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Deletions(*map(torch.cat, zip(*[none, *parts], strict=True)))


def _some(lm: LanguageModel, texts: list[str], first: int, shortlist: int | None, log: bool) -> Deletions:
    surprisals = lm.surprisals(texts)
    counts = torch.tensor([len(s) for s in surprisals])
    padded = pad_sequence(surprisals, batch_first=True, padding_value=-float("inf"))
    most = padded.shape[1] if shortlist is None else min(shortlist, padded.shape[1])
    value, at = padded.topk(most, 1)
    row, slot = (value.isfinite() & (counts >= 2)[:, None]).nonzero(as_tuple=True)
    word = at[row, slot]
    split = [text.split() for text in texts]
    shorter = [" ".join(split[i][:j] + split[i][j + 1 :]) for i, j in zip(row.tolist(), word.tolist(), strict=True)]
    after = lm.log_likelihood(shorter).double() / (counts[row] - 1)
    sums = torch.tensor([0.0]) if len(padded) == 0 else padded.masked_fill(~padded.isfinite(), 0).double().sum(1)
    before = -(sums / counts.clamp_min(1))[row]
    drop = after - before if log else (-before).exp() - (-after).exp()
    return Deletions(row + first, word, drop.float())


def without(texts: list[str], found: Deletions, bar: float) -> list[str]:
    """The texts without the words whose deletion brings more than `bar`; the least suspicious word always stays."""
    gone: dict[int, dict[int, float]] = {}
    over = found.drop > bar
    chosen = zip(found.row[over].tolist(), found.word[over].tolist(), found.drop[over].tolist(), strict=True)
    for row, word, drop in chosen:
        gone.setdefault(row, {})[word] = drop
    out = list(texts)
    for row, words in gone.items():
        split = texts[row].split()
        if len(words) == len(split):
            del words[min(words, key=lambda word: words[word])]
        out[row] = " ".join(w for i, w in enumerate(split) if i not in words)
    return out
