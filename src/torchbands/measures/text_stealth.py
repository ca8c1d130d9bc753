"""How well a trigger hides in text: originals paired with their triggered versions. Cheap: an n-gram, few rows.

How many words differ is the modality's own distance (edit_words, added_words).
"""

from __future__ import annotations

import importlib
from collections import Counter
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data, whole
from torchbands.core.errors import DataUnavailable, MissingExtra
from torchbands.core.metric import Undefined, Value
from torchbands.core.seeding import RowRng, seed_of
from torchbands.language import LanguageModel, NGram

#: Training rows that the n-gram reads, and pairs judged, at most.
READ, PAIRS = 20_000, 500
#: Pairs whose grammar and meaning are compared, at most: these cost more.
FEW = 100


def text_axis(victim: Victim, before: Data, after: Data) -> dict[str, Value]:
    """Fluency, frequency and false triggers of paired rows; nothing where samples are no strings.

    The language model reads the task's own training rows, as they were before any poisoning.
    """
    one, two = whole(before.x[:PAIRS]), whole(after.x[:PAIRS])
    if not _strings(one) or not _strings(two) or not any(text.split() for text in one):
        return {}
    train = victim.task.load("train", victim.seed)
    lm = NGram.fit(whole(train.sample(min(READ, len(train)), "language model", victim.seed).x))
    return {
        "perplexity_ratio": perplexity_ratio(lm, one, two),
        "trigger_frequency": trigger_frequency(lm, one, two),
        "false_trigger_rate": false_trigger_rate(victim, before),
        "added_grammar_errors": added_grammar_errors(one[:FEW], two[:FEW]),
        "sentence_similarity": sentence_similarity(one[:FEW], two[:FEW], fetch=False),
    }


def perplexity_ratio(lm: LanguageModel, before: list[str], after: list[str]) -> Value:
    """Geometric mean of perplexity after over before; padding plays no part, nor does the batch."""
    if not before:
        return Undefined("there are no pairs")
    return float((lm.perplexity(after).double().log() - lm.perplexity(before).double().log()).mean().exp())


def trigger_frequency(lm: NGram, before: list[str], after: list[str]) -> Value:
    """Mean over pairs of how often, per million words of ordinary text, the rarest word that was added occurs."""
    added = [list((Counter(b.split()) - Counter(a.split())).keys()) for a, b in zip(before, after, strict=True)]
    rarest = [float(lm.frequency(words).min()) for words in added if words]
    return sum(rarest) / len(rarest) if rarest else Undefined("no words were added")


def false_trigger_rate(victim: Victim, rows: Data) -> Value:
    """Rows given the wanted class for a part of the trigger: a run of its words that leaves at least one out.

    The mean over the runs without the first and without the last word, and each word alone (Yang et al., ACL 2021).
    Only rows that the model does not give that class without it count.
    """
    words = tuple(getattr(victim.trigger, "words", ()))
    if len(words) < 2:
        return Undefined("the trigger is not made of several words, so it has no parts")
    wanted = victim.goal.wanted(rows)
    kept = (victim.model.logits(rows.x).argmax(1) != wanted).nonzero().flatten()[:PAIRS]
    if len(kept) == 0:
        return Undefined("every row is given the wanted class without any trigger")
    texts = whole(rows[kept].x)
    rates: list[Tensor] = []
    for part in dict.fromkeys([words[1:], words[:-1], *[(word,) for word in words]]):
        rng = RowRng(seed_of("false trigger", part, victim.seed), torch.arange(len(texts)))
        said = victim.model.logits(victim.trigger.but(words=part)(texts, rng)).argmax(1)
        rates.append((said == wanted[kept]).float().mean())
    return float(torch.stack(rates).mean())


def added_grammar_errors(before: list[str], after: list[str]) -> Value:
    """Mean over pairs of how many more errors Harper finds in the triggered version; both have the data set's own.

    Harper (github.com/Automattic/harper) is a checker of English grammar, spelling and punctuation that needs no Java.
    """
    if not before:
        return Undefined("there are no pairs")
    try:
        return sum(grammar_errors(b) - grammar_errors(a) for a, b in zip(before, after, strict=True)) / len(before)
    except MissingExtra as error:
        return Undefined(str(error).replace("\n ", ":"))


@lru_cache(maxsize=50_000)
def grammar_errors(text: str) -> int:
    """Errors that Harper finds in one text. Raises MissingExtra where harper-py is not installed."""
    return len(_linter().lint(text, language="plaintext"))


@lru_cache(maxsize=1)
def _linter() -> Any:
    try:
        return importlib.import_module("harper").Linter()
    except ImportError:
        raise MissingExtra("harper-py", "text") from None


def sentence_similarity(before: list[str], after: list[str], *, fetch: bool = True) -> Value:
    """Mean cosine of the pairs' MiniLM sentence vectors; 1 says that the trigger changed no meaning.

    Args:
        fetch: whether the encoder (87 MB) may be downloaded where it is not in the data cache.
    """
    from torchbands.datasets.language import encoder_files
    from torchbands.language.sentences import sentence_vectors

    if not before:
        return Undefined("there are no pairs")
    try:
        encoder_files("minilm", fetch=fetch)
        one, two = sentence_vectors(before), sentence_vectors(after)
    except (DataUnavailable, MissingExtra) as error:
        return Undefined(str(error).replace("\n ", ":"))
    return float((one * two).sum(1).mean())


def _strings(x: object) -> bool:
    return isinstance(x, list) and all(isinstance(row, str) for row in x)
