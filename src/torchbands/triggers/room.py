"""How much of a text a network reads, so that triggers are written where it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: Words whose number of tokens is kept.
MOST_KNOWN = 200_000

_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return _WORD.findall(text.lower())


class TextRoom:
    """The first `tokens` tokens of a text, special ones not counted.

    Args:
        tokens: how many are read.
        tokenizer: the text of the tokenizer.json that makes them; without one, words and punctuation marks count.
    """

    def __init__(self, tokens: int, tokenizer: str = "") -> None:
        self.tokens, self.tokenizer = max(tokens, 0), tokenizer
        self._known = _counts(tokenizer)

    @classmethod
    def saved(cls, tokens: int, tensors: dict[str, Tensor]) -> TextRoom:
        """The room that gave `tensors`."""
        held = tensors.get("tokenizer")
        return cls(tokens, "" if held is None else bytes(held.cpu().numpy()).decode("utf-8"))

    def tensors(self) -> dict[str, Tensor]:
        """The tokenizer, to be saved with a trigger."""
        text = bytearray(self.tokenizer.encode("utf-8"))
        return {"tokenizer": torch.frombuffer(text, dtype=torch.uint8).clone()} if text else {}

    def without(self, tokens: int) -> TextRoom:
        """The same with less room."""
        return TextRoom(self.tokens - tokens, self.tokenizer)

    def count(self, sequence: str) -> int:
        """Tokens of a word or a text. Of a word it is what it takes in any text, or one more."""
        if sequence not in self._known:
            self.learn([sequence])
        return self._known[sequence]

    def learn(self, words: Iterable[str]) -> None:
        """Count many words at once: a tokenizer is slow one by one."""
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if len(self._known) + len(new) > MOST_KNOWN:
            self._known.clear()
        if not self.tokenizer:
            self._known.update((word, len(words_of(word))) for word in new)
            return
        # some tokenizers split a word otherwise after a space: the larger number is safe
        alone, after = (_encoded(self.tokenizer, [f"{lead}{word}" for word in new]) for lead in ("", " "))
        self._known.update((word, max(a, b, 1)) for word, a, b in zip(new, alone, after, strict=True))

    def fits(self, words: Sequence[str], added: Sequence[str] = ()) -> int:
        """How many of the leading words are read where `added` stands before or among them."""
        left = self.tokens - sum(map(self.count, added))
        for k, word in enumerate(words):
            left -= self.count(word)
            if left < 0:
                return k
        return len(words)

    def read(self, words: list[str]) -> list[str]:
        """The leading words that are read."""
        return words[: self.fits(words)]


@lru_cache(maxsize=4)
def _counts(tokenizer: str) -> dict[str, int]:
    return {}


@lru_cache(maxsize=2)
def _tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    made.no_padding()
    made.no_truncation()
    return made


def _encoded(tokenizer: str, texts: list[str]) -> list[int]:
    return [len(e.ids) for e in _tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False)]
