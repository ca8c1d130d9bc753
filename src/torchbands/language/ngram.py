"""A trigram model of words with modified Kneser-Ney smoothing, fitted on any texts in seconds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchbands.core.errors import InputError

from .base import WordSurprisal

#: Ids before the first word: outside the vocabulary, and the start of a text.
UNKNOWN, START, FIRST = 0, 1, 2
#: Three ids fit one int64 key.
BITS = 21
#: How many words the language has, for the share of one that was never seen.
OPEN_VOCABULARY = 1_000_000

_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")


def tokens_of(word: str) -> list[str]:
    """Letters-and-digits runs and single marks of a word, in lower case: "Don't" is don, ', t."""
    return _TOKEN.findall(word.lower())


@dataclass
class NGram(WordSurprisal):
    """Interpolated trigram model (modified Kneser-Ney: Chen and Goodman, 1999). Use `fit` or `load`.

    Attributes:
        vocabulary: words in the order of their ids, most frequent first.
        counts: (V,) how often each was seen.
        tables: sorted int64 keys and float32 values: what an n-gram gets of its own, and what a context passes on.
        source: what it was fitted on, for reports.
    """

    vocabulary: list[str]
    counts: Tensor
    tables: dict[str, Tensor]
    source: str = "texts of the caller"
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._ids = {word: FIRST + i for i, word in enumerate(self.vocabulary)}

    @property
    def about(self) -> str:
        """A trigram, and of which texts."""
        return f"trigram of {self.source}"

    @classmethod
    def fit(cls, texts: Iterable[str], *, source: str = "texts of the caller") -> NGram:
        """Count the texts. Raises InputError where they hold no words."""
        rows = [[t for word in text.split() for t in tokens_of(word)] for text in texts]
        seen = Counter(t for row in rows for t in row)
        if not seen:
            raise InputError("a language model needs texts with words, got none")
        kept = seen.most_common((1 << BITS) - FIRST)
        ids = {word: FIRST + i for i, (word, _) in enumerate(kept)}
        flat = [i for row in rows for i in (START, START, *[ids.get(t, UNKNOWN) for t in row])]
        counts = torch.tensor([n for _, n in kept], dtype=torch.int64)
        return cls([w for w, _ in kept], counts, _tables(torch.tensor(flat), FIRST + len(kept)), source)

    def flat(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(W,) float32 nats of every word of all texts, and (N,) int64 words of each."""
        stream: list[int] = []
        pieces: list[int] = []
        words: list[int] = []
        starts = (START, START)
        for text in texts:
            split = text.split()
            words.append(len(split))
            stream += starts
            for word in split:
                ids = self._known.get(word) or self._read(word)
                stream += ids
                pieces.append(len(ids))
        w = torch.tensor(stream, dtype=torch.int64)
        nats = -self._probability(w).log()
        rows = torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces, dtype=torch.int64))
        out = torch.zeros(len(pieces), dtype=torch.float64).index_add_(0, rows, nats)
        return out.float(), torch.tensor(words, dtype=torch.int64)

    def frequency(self, words: list[str]) -> Tensor:
        """(N,) occurrences of each word per million tokens of the texts fitted on; of several tokens, the rarest."""
        total = float(self.counts.sum())
        found = [min((int(self.counts[i - FIRST]) if i >= FIRST else 0) for i in self._read(w)) for w in words]
        return torch.tensor(found, dtype=torch.float64) * (1e6 / total)

    def save(self, folder: Path) -> None:
        """Write `ngram.safetensors` and `ngram.json` into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({**self.tables, "counts": self.counts}, folder / "ngram.safetensors")
        (folder / "ngram.json").write_text(json.dumps({"source": self.source, "vocabulary": self.vocabulary}))

    @classmethod
    def load(cls, folder: Path) -> NGram:
        """What `save` wrote."""
        facts = json.loads((folder / "ngram.json").read_text())
        tables = load_file(folder / "ngram.safetensors")
        counts = tables.pop("counts")
        return cls(list(facts["vocabulary"]), counts, tables, str(facts["source"]))

    def _read(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._ids.get(t, UNKNOWN) for t in tokens_of(word))
        if len(self._known) < 1_000_000:
            self._known[word] = ids
        return ids

    def _probability(self, w: Tensor) -> Tensor:
        """(T,) float64 of every token of a stream that is not START."""
        at = (w != START).nonzero().flatten()
        c, b, a = w[at], w[at - 1], w[at - 2]
        t = self.tables
        one = torch.where(c == UNKNOWN, t["unknown"], t["own1"][c]).double()
        two = _find(t["keys2"], t["own2"], b << BITS | c, 0.0) + t["pass2"][b].double() * one
        context = a << BITS | b
        own = _find(t["keys3"], t["own3"], context << BITS | c, 0.0)
        return own + _find(t["contexts3"], t["pass3"], context, 1.0) * two


def _find(keys: Tensor, values: Tensor, wanted: Tensor, absent: float) -> Tensor:
    if len(keys) == 0:
        return torch.full((len(wanted),), absent, dtype=torch.float64)
    at = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return torch.where(keys[at] == wanted, values[at].double(), absent)


def _tables(w: Tensor, size: int) -> dict[str, Tensor]:
    """Own and passed-on probability of all n-grams of a stream of ids in which START, START opens every text."""
    at = (w != START).nonzero().flatten()
    a, b, c = w[at - 2], w[at - 1], w[at]
    keys3, count3 = torch.unique((a << BITS | b) << BITS | c, return_counts=True)
    low = (1 << 2 * BITS) - 1
    # lower orders count different contexts, not occurrences; what opens a text has but one and keeps its occurrences
    keys2, different = torch.unique(keys3 & low, return_counts=True)
    _, plain = torch.unique(b << BITS | c, return_counts=True)
    count2 = torch.where(keys2 >> BITS == START, plain, different)
    count1 = torch.bincount(keys2 & ((1 << BITS) - 1), minlength=size)
    own3, contexts3, pass3 = _smoothed(keys3 >> BITS, count3)
    own2, contexts2, some2 = _smoothed(keys2 >> BITS, count2)
    pass2 = torch.ones(size, dtype=torch.float64).scatter_(0, contexts2, some2)
    own1, _, pass1 = _smoothed(torch.zeros(size, dtype=torch.int64), count1)
    unseen = pass1 / max(OPEN_VOCABULARY, 2 * size)
    made = {"own3": own3, "pass3": pass3, "own2": own2, "pass2": pass2, "own1": own1 + unseen, "unknown": unseen}
    return {"keys3": keys3, "contexts3": contexts3, "keys2": keys2} | {k: v.float() for k, v in made.items()}


def _smoothed(contexts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) discounted shares in their context, the contexts in order, and the share that each passes on."""
    n = [int((counts == k).sum()) for k in (1, 2, 3, 4)]
    y = n[0] / (n[0] + 2 * n[1]) if n[0] else 0.5
    cut = [0.0] + [k - (k + 1) * y * n[k] / n[k - 1] if n[k - 1] else k * 0.5 for k in (1, 2, 3)]
    discount = torch.tensor([min(max(d, 0.1 * (k > 0)), 0.9 * k) for k, d in enumerate(cut)], dtype=torch.float64)
    taken = discount[counts.clamp_max(3)]
    which, rows = torch.unique(contexts, return_inverse=True)
    zero = torch.zeros(len(which), dtype=torch.float64)
    total = zero.index_add(0, rows, counts.double())
    return (counts - taken) / total[rows], which, zero.index_add(0, rows, taken) / total
