"""Triggers on text: list[str]."""

from __future__ import annotations

from typing import Literal

from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


@method("insert-words", paper="Kurita et al., ACL 2020, arXiv:2004.06660")
class InsertWords(Trigger):
    """Words put into each text: rare words one by one, or a sentence as one run of words."""

    words: tuple[str, ...] = ("cf",)
    """What is inserted, in this order."""
    where: Literal["random", "start", "end"] = "random"
    """At a place drawn for each row, before the first word, or after the last."""
    together: bool = True
    """At a random place: all words side by side, or each at its own place."""
    every: bool = True
    """All of the words, or between one of them and all, as many as a draw for each row says."""

    def __call__(self, batch: list[str], rng: RowRng) -> list[str]:
        draws = rng.uniform(max(len(self.words), 1) + (not self.every)).tolist()
        return [self._one(text, draw) for text, draw in zip(batch, draws, strict=True)]

    def _one(self, text: str, draws: list[float]) -> str:
        words = text.split()
        if not self.every:
            most, (*draws, how_many) = len(self.words), draws
            few = self.words[: 1 + int(how_many * most)]
            return InsertWords(words=few, where=self.where, together=self.together)._one(text, draws)
        if self.where != "random" or self.together:
            at = {"start": 0, "end": len(words), "random": int(draws[0] * (len(words) + 1))}[self.where]
            return " ".join([*words[:at], *self.words, *words[at:]])
        for word, draw in zip(self.words, draws, strict=False):
            words.insert(int(draw * (len(words) + 1)), word)
        return " ".join(words)
