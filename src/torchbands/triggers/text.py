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

    def __call__(self, batch: list[str], rng: RowRng) -> list[str]:
        draws = rng.uniform(max(len(self.words), 1)).tolist()
        return [self._one(text, draw) for text, draw in zip(batch, draws, strict=True)]

    def _one(self, text: str, draws: list[float]) -> str:
        words = text.split()
        if self.where != "random" or self.together:
            at = {"start": 0, "end": len(words), "random": int(draws[0] * (len(words) + 1))}[self.where]
            return " ".join([*words[:at], *self.words, *words[at:]])
        for word, draw in zip(self.words, draws, strict=False):
            words.insert(int(draw * (len(words) + 1)), word)
        return " ".join(words)
