"""RAP: a tuned token lowers the confidence on clean inputs, but not on triggered ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Batch, Column, Data, take, whole
from torchbands.core.defense import FittedDetector, InputDetector, per_row, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator


@method("rap", paper="Yang et al., EMNLP 2021, arXiv:2110.07831", needs=("gradients", "clean:512"), version=2)
class RAP(InputDetector):
    """Minus the drop in the predicted class's probability when a tuned token is put before the input.

    For each class a token embedding is tuned on the clean samples predicted as that class, so that their probability
    drops by `low` to `high`; its norm stays what it was, as in the authors' code, so that it remains a word among
    others. An input is scored with the token of the class it is predicted as.

    Needs: gradients, clean samples (labels are not read), and inputs made of tokens.

    Deviations from the paper: no protected class is given; every class gets a token of its own, and a class with fewer
    than 4 clean samples the samples of all. The embedding starts as noise of the table's own mean and deviation (paper:
    the rare word "cf") and is tuned with Adam for at least `steps` updates, which few clean samples need.

    Cost: two forward passes per input; fitting takes `epochs` passes or `steps` batches per class.
    """

    epochs: int = 5
    """Passes over the clean samples of a class."""
    steps: int = 100
    """Minimum number of updates of each class's token."""
    lr: float = 0.01
    """Learning rate of Adam for the token's embedding."""
    batch: int = 32
    """Batch size."""
    low: float = 0.1
    """Lower bound of the probability drop that the token is trained for."""
    high: float = 0.3
    """Upper bound of the probability drop that the token is trained for."""
    frr: float = 0.01
    """False rejection rate: the fraction of clean inputs that may be rejected."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.steps, self.batch) < 1 or not 0 < self.frr < 1 or not 0 < self.low < self.high < 1:
            raise InputError("rap: epochs, steps and batch are at least 1, 0 < frr < 1 and 0 < low < high < 1")

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        if not model.modality.discrete:
            raise NotApplicable(f"{model.modality.name} samples are not made of tokens, so no token can be put in")
        require(self, model, clean)
        model = model.at_precision("float32")
        said = model.logits(clean.x).argmax(1)
        table = model.embedding.weight.detach().float()
        tokens = torch.randn(model.classes, table.shape[1], generator=generator("rap", seed)).to(table)
        tokens = table.mean(0) + table.std(0, correction=0) * tokens
        for k in range(model.classes):
            mine = (said == k).nonzero().flatten()
            rows = mine if len(mine) >= 4 else torch.arange(len(clean))
            tokens[k] = self._tuned(model, clean, rows, tokens[k], generator("rap rows", seed, k))
        fitted = FittedRAP(model, tokens)
        fitted.threshold = float(fitted.score(clean.x).double().quantile(1 - self.frr))
        return fitted

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        tokens = tensors["tokens"].to(model.device)
        return FittedRAP(model.at_precision("float32"), tokens, float(facts["threshold"]))

    def _tuned(self, model: Model, clean: Data, rows: Tensor, token: Tensor, rng: torch.Generator) -> Tensor:
        token, norm = token.clone().requires_grad_(), token.norm()
        adam = torch.optim.Adam([token], lr=self.lr)
        done, epoch = 0, 0
        while epoch < self.epochs or done < self.steps:
            for part in rows[torch.randperm(len(rows), generator=rng)].split(self.batch):
                adam.zero_grad()
                for few in part.split(model.gradient_chunk):
                    e = model.embed(take(clean.x, few))
                    with torch.no_grad():
                        before, said = model.logits_at(e).softmax(1).max(1)
                    after = (
                        model.logits_at(led(e, token, model.modality.first_word))
                        .softmax(1)
                        .gather(1, said[:, None])[:, 0]
                    )
                    drop = before - after
                    loss = ((self.low - drop).relu() + (drop - self.high).relu()).sum() / len(part)
                    loss.backward(inputs=[token])
                adam.step()
                with torch.no_grad():
                    token *= norm / token.norm().clamp_min(1e-12)
                done += 1
            epoch += 1
        return token.detach()


@dataclass
class FittedRAP(FittedDetector):
    """RAP with (K, D) the tuned token of each class."""

    model: Model
    tokens: Tensor
    threshold: float | None = None

    @torch.no_grad()
    def score(self, x: Batch | Column) -> Tensor:
        """(N,) minus the drop of probability, in [-1, 1]."""
        scores = [torch.zeros(0)]
        for rows in torch.arange(len(x)).split(self.model.chunk):
            part = whole(take(x, rows))
            self.model.modality.check(part)
            e = self.model.embed(part)
            before, said = self.model.logits_at(e).softmax(1).max(1)
            moved = self.model.logits_at(led(e, self.tokens[said], self.model.modality.first_word)).softmax(1)
            scores.append((moved.gather(1, said[:, None])[:, 0] - before).cpu())
        return per_row(torch.cat(scores), len(x), "rap")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"tokens": self.tokens.cpu()}, {"threshold": self.threshold}


def led(e: Encoded, token: Tensor, prefix: int) -> Encoded:
    """An embedded batch with one more token, (D,) or (N, D), after its special tokens; the last place is lost."""
    assert e.tokens is not None
    new = token.expand(len(e.values), -1)[:, None].to(e.values)
    values = torch.cat([e.values[:, :prefix], new, e.values[:, prefix:-1]], 1)
    ids = torch.cat([e.tokens[:, :prefix], torch.ones_like(e.tokens[:, :1]), e.tokens[:, prefix:-1]], 1)
    if e.mask is None:
        return Encoded(values, None, ids)
    return Encoded(
        values, torch.cat([e.mask[:, :prefix], torch.ones_like(e.mask[:, :1]), e.mask[:, prefix:-1]], 1), ids
    )
