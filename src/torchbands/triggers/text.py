"""Triggers on text: list[str]."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import ClassVar, Literal

from torchbands.core.errors import InputError
from torchbands.core.method import Free, method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Room, Trigger
from torchbands.triggers.room import TextRoom


@method("insert-words", paper="Kurita et al., ACL 2020, arXiv:2004.06660")
class InsertWords(Trigger):
    """Inserts words into each text: rare words one by one, or a sentence as one run of words.

    Where a network reads the beginning of a text only, `Modality.placed` gives the trigger its room, and every place is
    drawn within it, the trigger's own tokens counted.
    """

    free: ClassVar[Free] = {"words": "text"}

    words: tuple[str, ...] = ("cf",)
    """Words to insert, in this order."""
    where: Literal["random", "start", "end"] = "random"
    """Where to insert: at a position drawn for each row, before the first word, or after the last one the model
    reads."""
    together: bool = True
    """At a random position: insert all words side by side, or each at its own position."""
    every: bool = True
    """Insert all words, or a random number of them (at least one) drawn for each row."""
    room: int = 0
    """Tokens read from the start of a text, apart from special ones; 0: no limit."""
    unit: Literal["words", "tokens"] = "words"
    """Unit of `room`: words and punctuation marks, or tokens of the tokenizer in `weights`."""

    def within(self, room: Room) -> InsertWords:
        weights = room.tensors()
        return replace(self, room=max(room.tokens, 1), unit="tokens" if weights else "words", weights=weights)

    def adds(self, room: Room) -> int:
        return sum(map(room.count, self.words))

    def __call__(self, batch: list[str], rng: RowRng) -> list[str]:
        draws = rng.uniform(max(len(self.words), 1) + (not self.every)).tolist()
        texts, room = [text.split() for text in batch], self._room()
        if room is not None:
            room.learn(chain(self.words, *(words[: room.tokens] for words in texts)))
        return [" ".join(self._one(words, draw, room)) for words, draw in zip(texts, draws, strict=True)]

    def _room(self) -> TextRoom | None:
        if not self.room:
            return None
        if self.unit == "tokens" and "tokenizer" not in self.weights:
            raise InputError("insert-words counts tokens, so it needs its weights 'tokenizer'")
        return TextRoom.saved(self.room, dict(self.weights))

    def _one(self, words: list[str], draws: list[float], room: TextRoom | None) -> list[str]:
        added = self.words
        if not self.every:
            *draws, how_many = draws
            added = added[: 1 + int(how_many * len(added))]
        last = len(words) if room is None else room.fits(words, added)
        if self.where != "random" or self.together:
            at = {"start": 0, "end": last, "random": int(draws[0] * (last + 1))}[self.where]
            return [*words[:at], *added, *words[at:]]
        words = list(words)
        for i, (word, draw) in enumerate(zip(added, draws, strict=False)):
            words.insert(int(draw * (last + i + 1)), word)
        return words
