"""Generator: a model that answers a prompt with text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .data import Batch, Column, whole
from .errors import InputError, NotApplicable
from .modality import Encoded, Modality
from .model import Model
from .passes import Outputs


class Generator(Model):
    """A module that maps encoded prompts to (N, V) logits of the next token.

    It is asked for texts and for distributions of the next token; `logits_at`, too, gives those of the next token.
    Whatever needs the logits or features of K classes, or rows with such labels, declines it with a reason; what reads
    weights alone does not. It is trained like any model: `classes` is the size V of its vocabulary.

    Args:
        words: the V tokens as they are written, by id. end: the token after which it says no more; None: it has none.
    """

    def __init__(
        self, module: nn.Module, modality: Modality, words: Sequence[str], *, end: int | None = None, **options: Any
    ) -> None:
        super().__init__(module, modality, len(words), **options)
        self.words, self.end = tuple(words), end

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset({"model", "generates", "weights", "gradients", "units"})

    def clone(self) -> Generator:
        other = super().clone()
        return self._like(other)

    def at_precision(self, precision: str) -> Generator:
        return self._like(super().at_precision(precision))

    def _like(self, other: Model) -> Generator:
        made = Generator(
            other.module, self.modality, self.words, end=self.end, precision=other.precision, passes=self.passes
        )
        made._shared = other._shared
        return made

    def next_token(self, prompts: Batch | Column) -> Tensor:
        """(N, V) float32 log-probabilities of the token after each prompt, on the CPU."""
        if len(prompts) == 0:
            return torch.zeros(0, self.classes)
        return self._rows(prompts, self._forward).log_softmax(1)

    def generate(self, prompts: Batch | Column, *, tokens: int) -> list[str]:
        """What it says to each of N prompts, always the likeliest token, at most so many."""
        if tokens < 1:
            raise InputError(f"a generator says at least 1 token, asked for {tokens}")
        asked = [str(prompt) for prompt in whole(prompts)]
        said: list[list[str]] = [[] for _ in asked]
        going = list(range(len(asked)))
        for _ in range(tokens):
            if not going:
                break
            so_far = [" ".join([asked[i], *said[i]]) for i in going]
            best = self.next_token(so_far).argmax(1).tolist()
            for i, token in zip(going, best, strict=True):
                if token != self.end:
                    said[i].append(self.words[token])
            going = [i for i, token in zip(going, best, strict=True) if token != self.end]
        return [" ".join(words) for words in said]

    def _decline(self) -> NoReturn:
        raise NotApplicable("a generator answers with text: it has no logits or features of classes")

    def logits(self, x: Batch | Column) -> Tensor:
        self._decline()

    def outputs(self, x: Batch | Column) -> Outputs:
        self._decline()

    def features_of(self, x: Batch | Column, layers: Iterable[str | None]) -> list[Tensor]:
        self._decline()

    def features_at(self, e: Encoded) -> Tensor:
        self._decline()
