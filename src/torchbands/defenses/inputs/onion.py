"""ONION: a word whose deletion makes the text much more fluent was probably inserted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from torchbands.core.data import Batch, Column, Data, take, whole
from torchbands.core.defense import FittedDetector, InputDetector, per_row, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import Free, method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.language import LanguageModel, NGram, named

from ._deletions import Deletions, deletions, without

#: Bars tried on clean rows: these shares of their words' drops are below.
QUANTILES = (1.0, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5)


@method("onion", paper="Qi et al., EMNLP 2021, arXiv:2011.10369", needs=("logits", "clean:512"))
class ONION(InputDetector):
    """Largest drop in perplexity when one word is deleted; `correct` deletes every word above the threshold.

    The bar is the lowest that costs at most `loss` of the accuracy on clean rows. It is the threshold too: a text is
    flagged where a word would be deleted from it.

    Needs: logits (a black box will do), clean labelled samples, text.

    Deviations from the paper: the language model is by default a trigram fitted on half of the clean rows, the other
    half sets the bar (paper: GPT-2); give `lm` for another. Only the `shortlist` most surprising words of a text, told
    by one pass, are deleted to be verified (paper: every word); `exhaustive=True` deletes each in turn. The last word
    of a text is never deleted.

    Cost: 1 + `shortlist` readings of the language model per text; the model itself only in fitting.
    """

    free: ClassVar[Free] = {"lm": ("ngram", "english")}

    lm: str = "ngram"
    """Language model: "ngram" (trained on the clean rows), "english" (a trigram model of film reviews), or the folder
    of a causal language model."""
    shortlist: int = 10
    """Number of words per text whose deletion is scored exactly."""
    exhaustive: bool = False
    """Score the deletion of every word exactly."""
    drop: Literal["perplexity", "log"] = "perplexity"
    """Score by the difference of perplexities, as published, or of their logarithms."""
    loss: float = 0.02
    """Clean accuracy that the correction may cost."""

    def __post_init__(self) -> None:
        if self.shortlist < 1 or not 0 <= self.loss < 1:
            raise InputError("onion: shortlist is at least 1, and loss at least 0 and below 1")

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        rows = model.modality.random(1, torch.Generator().manual_seed(0))
        if not (isinstance(rows, list) and isinstance(rows[0], str)):
            raise NotApplicable(f"{model.modality.name} samples have no words that a language model could read")
        require(self, model, clean)
        if len(clean) < 4:
            raise InputError(f"onion needs clean samples to read and others to set its bar, got {len(clean)}")
        order = torch.randperm(len(clean), generator=generator("onion", seed))
        read, kept = order[: len(clean) // 2], order[len(clean) // 2 :]
        texts = _texts(take(clean.x, read))
        lm: LanguageModel = (
            NGram.fit(texts, source=f"{len(texts)} clean rows") if self.lm == "ngram" else named(self.lm)
        )
        fitted = FittedONION(lm, None if self.exhaustive else self.shortlist, self.drop == "log")
        judged = kept if self.lm == "ngram" else order
        fitted.threshold = self._bar(model, fitted, _texts(take(clean.x, judged)), clean.y[judged])
        return fitted

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        tables = dict(tensors)
        lm = NGram(list(facts["vocabulary"]), tables.pop("counts"), tables, str(facts["source"]))
        return FittedONION(lm, facts["shortlist"], bool(facts["log"]), float(facts["threshold"]))

    def _bar(self, model: Model, fitted: FittedONION, texts: list[str], y: Tensor) -> float:
        """The lowest bar above which all cost no more than `loss`."""
        found = fitted.deletions(texts)
        if len(found.drop) == 0:
            return 0.0
        right = (model.logits(texts).argmax(1) == y).double().mean()
        best = float(found.drop.max())
        for bar in found.drop.double().quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist():
            kept = (model.logits(without(texts, found, bar)).argmax(1) == y).double().mean()
            if right - kept > self.loss:
                break
            best = bar
        return max(best, 0.0)


@dataclass
class FittedONION(FittedDetector):
    """ONION with its language model. `shortlist` None: every word is tried."""

    lm: LanguageModel
    shortlist: int | None
    log: bool
    threshold: float | None = None

    @property
    def about(self) -> str:
        """Which language model reads, and what it has read."""
        return self.lm.about

    def deletions(self, texts: list[str]) -> Deletions:
        """The deletions tried and what each brings."""
        return deletions(self.lm, texts, self.shortlist, log=self.log)

    def score(self, x: Batch | Column) -> Tensor:
        """(N,) largest drop of perplexity (or its logarithm); 0 for texts of one word."""
        found = self.deletions(_texts(x))
        scores = torch.zeros(len(x)).scatter_reduce_(0, found.row, found.drop.float(), "amax", include_self=False)
        return per_row(scores, len(x), "onion")

    def correct(self, x: Batch) -> Batch:
        """The texts without their words over the bar."""
        texts = _texts(x)
        assert self.threshold is not None
        return without(texts, self.deletions(texts), self.threshold)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if not isinstance(self.lm, NGram):
            raise NotApplicable("onion with a neural language model is fitted anew, not saved")
        facts = {"vocabulary": self.lm.vocabulary, "source": self.lm.source, "shortlist": self.shortlist}
        tensors = {**self.lm.tables, "counts": self.lm.counts}
        return tensors, {**facts, "log": self.log, "threshold": self.threshold}


def _texts(x: Batch | Column) -> list[str]:
    rows = whole(x)
    if not (isinstance(rows, list) and all(isinstance(row, str) for row in rows)):
        raise InputError(f"onion reads a list of strings, got {type(rows).__name__}")
    return rows
