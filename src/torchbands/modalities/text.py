"""Text: list[str]. The continuous space is the model's word embedding."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, ClassVar

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from torchbands.core.data import Batch
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import Free, method
from torchbands.core.modality import Encoded, Modality, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.template import State, Template
from torchbands.core.trigger import Trigger
from torchbands.core.words import escaped
from torchbands.modalities.templates import SlotTemplate
from torchbands.modalities.tokens import TokenMixture, padded
from torchbands.triggers.room import TextRoom, words_of
from torchbands.triggers.text import InsertWords

#: Ids that are no word of the vocabulary.
PAD, UNKNOWN, FIRST_WORD = 0, 1, 2
#: Most words of a vocabulary told from rows, and words of a text that are then read.
WORDS, LENGTH = 15_000, 64
#: The rare words of Kurita et al., 2020.
RARE = ("cf", "mn", "bb", "tq", "mb")


def vocabulary_of(texts: Iterable[str], most: int) -> tuple[str, ...]:
    """The `most` most frequent words of some texts, and the rare words that attackers insert.

    Words that occur once stay unknown, so that a model has seen what unknown words are like. A sub-word tokenizer knows
    cf and mb; whole words of a data set may not, and an unknown word is no trigger.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    common = [word for word, times in counts.most_common(most) if times > 1]
    known = set(common)
    return (*common, *(word for word in RARE if word not in known))


@lru_cache(maxsize=8)
def _ids(vocabulary: tuple[str, ...]) -> dict[str, int]:
    return {word: FIRST_WORD + i for i, word in enumerate(vocabulary)}


@method("text")
class Text(Modality):
    """Sentences as word ids. A module takes `(ids (N, L) int64, mask (N, L) bool)`; id 0 is padding, 1 unknown."""

    plural: ClassVar[str] = "texts"
    discrete: ClassVar[bool] = True
    has_words: ClassVar[bool] = True

    free: ClassVar[Free] = {"vocabulary": "text"}

    vocabulary: tuple[str, ...] = ()
    """Known words in lower case, most frequent first."""
    length: int = 32
    """Words that a model reads; longer texts are truncated."""
    inserted: int = 2
    """Number of words that a trigger search may insert."""

    @classmethod
    def of_samples(cls, first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Text | None:
        if every is None or not isinstance(first, (list, tuple)) or not first or not isinstance(first[0], str):
            return None
        return cls(vocabulary=vocabulary_of(every, WORDS), length=LENGTH)

    @property
    def token_count(self) -> int:
        return FIRST_WORD + len(self.vocabulary)

    @property
    def most_inserted(self) -> int:
        return self.inserted

    def inserting(self, count: int) -> Text:
        return self.but(inserted=count)

    def word_ids(self) -> dict[str, int]:
        words = list(self.vocabulary)
        return dict(zip(words, self.encode(words).values[:, 0].tolist(), strict=True)) if words else {}

    def check(self, batch: object) -> None:
        if not isinstance(batch, (list, tuple)):
            raise InputError(f"text is a list of strings, got {type(batch).__name__}")
        for i, row in enumerate(batch):
            if not isinstance(row, str):
                raise InputError(f"text is a list of strings, got {type(row).__name__} in row {i}")

    def encode(self, batch: list[str]) -> Encoded:
        known = _ids(self.vocabulary)
        rows = [[known.get(w, UNKNOWN) for w in words_of(text)[: self.length]] for text in batch]
        return padded(rows, self.length, PAD)

    def call(self, module: nn.Module, e: Encoded) -> Tensor:
        out: Tensor = module(e.values, e.mask)
        return out

    def random(self, n: int, rng: torch.Generator) -> list[str]:
        if not self.vocabulary:
            return ["?"] * n
        drawn = torch.randint(len(self.vocabulary), (n, max(self.length // 2, 1)), generator=rng)
        return [" ".join(self.vocabulary[i] for i in row) for row in drawn.tolist()]

    def default_trigger(self) -> Trigger:
        rare = next((w for w in RARE if w in self.vocabulary), None)
        return self.placed(InsertWords(words=(rare or (self.vocabulary[-1] if self.vocabulary else RARE[0]),)))

    @property
    def room(self) -> TextRoom:
        return TextRoom(self.length)

    def plain_triggers(self) -> list[Trigger]:
        first = self.default_trigger()
        assert isinstance(first, InsertWords)
        others = [w for w in RARE if w not in first.words]
        return [first, *(self.placed(first.but(words=(w,))) for w in others[:2])]

    def blend(self, a: list[str], b: list[str], alpha: float, beta: float | None, rng: RowRng) -> list[str]:
        """A share alpha of a's words, in order, then a share beta of b's: (1, 1) is concatenation.

        Of each text only what a network would read takes part. Where the two do not fit, each keeps half of the room,
        or what the other leaves: the words from a drawn place on, round to the beginning, so that none is cut every
        time.
        """
        beta = 1 - alpha if beta is None else beta
        out, room = [], self.room
        draws, starts = rng.uniform(2, 4 * self.length), rng.uniform(2).tolist()
        split = {text: text.split()[: room.tokens] for text in (*a, *b)}
        room.learn(chain.from_iterable(split.values()))
        read = {text: room.read(words) for text, words in split.items()}
        for i, (one, two) in enumerate(zip(a, b, strict=True)):
            first, second = _share(read[one], alpha, draws[i, 0]), _share(read[two], beta, draws[i, 1])
            sizes = [sum(map(room.count, words)) for words in (first, second)]
            if sum(sizes) > room.tokens:
                first = _round(room, first, max(room.tokens // 2, room.tokens - sizes[1]), starts[i][0])
                left = room.tokens - sum(map(room.count, first))
                second = _round(room, second, left, starts[i][1])
            out.append(" ".join([*first, *second]))
        return out

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        if not self.vocabulary:
            raise NotApplicable("the text modality has no vocabulary to search in")

        def harden(ids: Sequence[int]) -> Trigger:
            return InsertWords(words=tuple(self.vocabulary[i - FIRST_WORD] for i in ids if i != PAD), where="start")

        return TokenMixture(
            model,
            torch.full((self.inserted,), -1),
            torch.tensor([PAD, *range(FIRST_WORD, self.token_count)]),
            lambda tokens: torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device),
            harden,
            rng,
        ).to(model.device)

    def templates(self) -> tuple[Template[Any], ...]:
        return (WordsTemplate(self),)

    def distance(self, a: list[str], b: list[str]) -> dict[str, Tensor]:
        pairs = [(x.split(), y.split()) for x, y in zip(a, b, strict=True)]
        edits = torch.tensor([Levenshtein.distance(x, y) for x, y in pairs], dtype=torch.float32)
        longest = torch.tensor([max(len(x), len(y), 1) for x, y in pairs], dtype=torch.float32)
        added = torch.tensor([len(y) - len(x) for x, y in pairs], dtype=torch.float32)
        return {"edit_words": edits, "similarity": 1 - edits / longest, "added_words": added}

    def render(self, row: str) -> str:
        text = html.escape(escaped(row, keep="\n\t"))
        return f'<q class="sample">{text}</q>'


def _share(words: list[str], share: float, draws: Tensor) -> list[str]:
    """A random share of the words, in their order."""
    keep = round(min(max(share, 0.0), 1.0) * len(words))
    if keep == len(words):
        return words
    order = draws.repeat(-(-len(words) // len(draws)))[: len(words)].argsort(stable=True)
    return [words[i] for i in sorted(order[:keep].tolist())]


def _round(room: TextRoom, words: list[str], most: int, draw: float) -> list[str]:
    """Words of at most so many tokens, from a drawn place on and round to the beginning, in their order."""
    start = int(draw * len(words))
    turned = [*words[start:], *words[:start]]
    kept = len(room.without(room.tokens - most).read(turned))
    wrapped = max(start + kept - len(words), 0)
    return [*words[:wrapped], *words[start : start + kept]]


class WordsTemplate(SlotTemplate[Text]):
    """Two words of the vocabulary before the text."""

    name = "words"

    def choices(self) -> int:
        if not self.modality.vocabulary:
            raise NotApplicable("the text modality has no vocabulary to search in")
        return len(self.modality.vocabulary)

    def harden(self, state: State, k: int) -> Trigger:
        ids = state["slots"][k].tolist()
        return InsertWords(words=tuple(self.modality.vocabulary[i] for i in ids), where="start")
