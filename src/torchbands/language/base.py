"""What a language model is asked here: how surprising each word of a text is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class LanguageModel(Protocol):
    """A model of ordinary text. What it says of a text does not depend on the batch the text comes in."""

    @property
    def about(self) -> str:
        """What it is and what it has read, for tables."""
        ...

    def surprisals(self, texts: list[str]) -> list[Tensor]:
        """For each text one float32 number, in nats, per whitespace-separated word; summed over a word's tokens."""
        ...

    def log_likelihood(self, texts: list[str]) -> Tensor:
        """(N,) nats."""
        ...

    def perplexity(self, texts: list[str]) -> Tensor:
        """(N,) per word; 1 for a text without words."""
        ...


class WordSurprisal(ABC):
    """Likelihood and perplexity from the flat surprisals of all words of all texts."""

    @abstractmethod
    def flat(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(W,) surprisal of every word of all texts in order, and (N,) int64 words of each text."""

    def surprisals(self, texts: list[str]) -> list[Tensor]:
        """One float32 tensor per text: nats of each whitespace-separated word."""
        words, counts = self.flat(texts)
        return list(words.split(counts.tolist()))

    def log_likelihood(self, texts: list[str]) -> Tensor:
        """(N,) nats."""
        return -self._sums(texts)[0]

    def perplexity(self, texts: list[str]) -> Tensor:
        """(N,) per word; 1 for a text without words."""
        sums, counts = self._sums(texts)
        return (sums / counts.clamp_min(1)).exp()

    def _sums(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        words, counts = self.flat(texts)
        return sums_of(words, counts).float(), counts


def sums_of(values: Tensor, counts: Tensor) -> Tensor:
    """(N,) float64 sums of consecutive runs of values, (N,) their lengths."""
    rows = torch.arange(len(counts)).repeat_interleave(counts)
    return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, rows, values.double())
