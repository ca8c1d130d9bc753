"""Text read by a model's own fast tokenizer: sub-word ids, with the same triggers and distances as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from torchbands.core.errors import NotApplicable
from torchbands.core.modality import Encoded, Perturbation
from torchbands.core.model import Model
from torchbands.core.trigger import Trigger
from torchbands.modalities.text import Text
from torchbands.modalities.tokens import TokenMixture
from torchbands.triggers.text import InsertWords


@lru_cache(maxsize=4)
def _tokenizer(text: str, length: int) -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    made.no_padding()
    made.enable_truncation(length)
    return made


def whole_words(vocabulary: dict[str, int]) -> dict[str, int]:
    """Tokens that are a word of their own (WordPiece, byte-level BPE, SentencePiece), in lower case, by id."""
    marked = any(token[:1] in ("\u0120", "\u2581") for token in vocabulary)
    found: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        word = token[1:] if marked else token
        if (token[:1] in ("\u0120", "\u2581") or not marked) and len(word) > 1 and word.isalpha() and word.islower():
            found.setdefault(word, number)
    return found


@dataclass(frozen=True, kw_only=True)
class TokenizedText(Text):
    """Text as a Hugging Face model reads it: `(ids (N, L) int64, mask (N, L) bool)`."""

    digest: str = ""
    """sha256 of the tokenizer."""
    padding: int = 0
    """Id of the padding token."""
    prefix: int = 1
    """Special tokens before the first word."""
    tokenizer: str = field(default="", repr=False, compare=False)
    """The text of tokenizer.json."""

    def encode(self, batch: list[str]) -> Encoded:
        tokenizer = _tokenizer(self.tokenizer, self.length)
        rows = [e.ids[: self.length] or [self.padding] for e in tokenizer.encode_batch(list(batch))]
        ids = torch.full((len(batch), self.length), self.padding, dtype=torch.int64)
        mask = torch.zeros(len(batch), self.length, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[i, : len(row)] = True
        return Encoded(ids, mask)

    def perturbation(self, model: Model, count: int, rng: torch.Generator) -> Perturbation:
        words = whole_words(_tokenizer(self.tokenizer, self.length).get_vocab())
        if not words:
            raise NotApplicable("the tokenizer has no whole words to search in")
        word_of = {number: word for word, number in words.items()}

        def harden(ids: Sequence[int]) -> Trigger:
            return InsertWords(words=tuple(word_of[i] for i in ids if i in word_of), where="start")

        return TokenMixture(
            model,
            count,
            torch.full((self.inserted,), -1),
            torch.tensor(list(word_of)),
            lambda tokens: torch.full((len(tokens),), self.prefix, dtype=torch.int64, device=tokens.device),
            harden,
            rng,
        ).to(model.device)
