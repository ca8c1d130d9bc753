"""Text read by a fast tokenizer: sub-word ids, with the same triggers and distances as plain text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any, ClassVar

import torch

from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import Free, method
from torchbands.core.modality import Encoded, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger
from torchbands.modalities.text import Text
from torchbands.modalities.tokens import TokenMixture, padded
from torchbands.triggers.room import TextRoom
from torchbands.triggers.text import InsertWords

#: Texts whose ids are kept, so that each is tokenised once.
MOST_KNOWN = 200_000
TOKENIZER = "tokenizer.json"


@lru_cache(maxsize=4)
def _known(digest: str, length: int) -> dict[str, list[int]]:
    return {}


@lru_cache(maxsize=4)
def tokenizer_of(text: str, length: int) -> Any:
    """The tokenizer of a tokenizer.json's text; it cuts at `length` tokens and does not pad."""
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


def tokenized(tokenizer: str, *, length: int, padding: int = 0, prefix: int = 1) -> TokenizedText:
    """Text as the tokenizer of that tokenizer.json reads it, cut at `length` tokens."""
    made = TokenizedText(
        vocabulary=tuple(whole_words(tokenizer_of(tokenizer, length).get_vocab())),
        length=length,
        digest=hashlib.sha256(tokenizer.encode()).hexdigest(),
        padding=padding,
        prefix=prefix,
    )
    return made.with_files({TOKENIZER: tokenizer.encode()})


@method("tokenized-text")
class TokenizedText(Text):
    """Text as input of a Hugging Face model: `(ids (N, L) int64, mask (N, L) bool)`.

    Its spec names the tokenizer by its digest; the tokenizer itself is saved beside it, as a file.
    """

    has_subwords: ClassVar[bool] = True

    free: ClassVar[Free] = {"vocabulary": "text", "digest": "text"}

    digest: str = ""
    """SHA-256 of the tokenizer."""
    padding: int = 0
    """Id of the padding token."""
    prefix: int = 1
    """Number of special tokens before the first word."""
    tokenizer: str = field(default="", repr=False, compare=False)
    """The text of tokenizer.json."""

    def files(self) -> Mapping[str, bytes]:
        return {TOKENIZER: self.tokenizer.encode()}

    def with_files(self, files: Mapping[str, bytes]) -> TokenizedText:
        if TOKENIZER not in files:
            raise InputError(f"{TOKENIZER} is missing beside what was saved with it")
        if hashlib.sha256(files[TOKENIZER]).hexdigest() != self.digest:
            raise InputError(f"{TOKENIZER} was altered: its checksum is not the one that was saved")
        return self.but(tokenizer=files[TOKENIZER].decode())

    def encode(self, batch: list[str]) -> Encoded:
        known = _known(self.digest, self.length)
        new = [text for text in dict.fromkeys(batch) if text not in known]
        if new:
            if len(known) + len(new) > MOST_KNOWN:
                known.clear()
                new = list(dict.fromkeys(batch))
            tokenizer = tokenizer_of(self.tokenizer, self.length)
            for text, e in zip(new, tokenizer.encode_batch(new), strict=True):
                known[text] = e.ids[: self.length] or [self.padding]
        return padded([known[text] for text in batch], self.length, self.padding)

    @property
    def room(self) -> TextRoom:
        special = tokenizer_of(self.tokenizer, self.length).num_special_tokens_to_add(False)
        return TextRoom(self.length - special, self.tokenizer)

    @property
    def token_count(self) -> int:
        return int(tokenizer_of(self.tokenizer, self.length).get_vocab_size())

    @property
    def first_word(self) -> int:
        return self.prefix

    def word_ids(self) -> dict[str, int]:
        return whole_words(tokenizer_of(self.tokenizer, self.length).get_vocab())

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        words = self.word_ids()
        if not words:
            raise NotApplicable("the tokenizer has no whole words to search in")
        word_of = {number: word for word, number in words.items()}

        def harden(ids: Sequence[int]) -> Trigger:
            return InsertWords(words=tuple(word_of[i] for i in ids if i in word_of), where="start")

        return TokenMixture(
            model,
            torch.full((self.inserted,), -1),
            torch.tensor(list(word_of)),
            lambda tokens: torch.full((len(tokens),), self.prefix, dtype=torch.int64, device=tokens.device),
            harden,
            rng,
        ).to(model.device)
