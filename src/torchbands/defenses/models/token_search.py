"""Token search: the inserted tokens that send samples to one class, over the whole vocabulary, by exact trials."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.modalities.tokens import TokenMixture

from ._inversion import frozen, others, rows_of, token_writer


@method("token-search", paper="after Wallace et al., EMNLP 2019, arXiv:1908.07125", needs=("gradients", "clean:200"))
class TokenSearch(ModelDetector):
    """Searches for one universal trigger per class by replacing tokens one at a time.

    The gradient at a token ranks the whole vocabulary by one product; the `shortlist` first are tried on the samples,
    exactly, and the best stays. per_class is the mean log-odds of the class with its best trigger. The score is the
    gap of the largest to the median class (with 2 classes: to the other one). Every model has words that speak for a
    class, so a number is to be compared with the same class in reference models (`torchbands.scanner`); no rule of its
    own flags anything.

    Needs: gradients, clean samples, and inputs made of tokens.

    Deviations from the paper: exact trials of a shortlist, one token at a time, in place of a beam; all classes are
    searched side by side.

    Cost: classes x `rounds` x inserted tokens x (`shortlist` + 2) x `rows` forward passes.
    """

    rows: int = 16
    """Samples of other classes per target."""
    rounds: int = 3
    """How often every token is revisited."""
    shortlist: int = 40
    """Candidate tokens evaluated at each change."""
    precision: Literal["float32", "fast"] = "fast"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        model = model.at_precision(self.precision)
        classes, rng = model.classes, generator(self.name, seed)
        writer = token_writer(self, model)
        picked = clean.sample(max(4 * self.rows, 2 * classes), self.name, seed, balanced=True)
        said = model.logits(picked.x).argmax(1)
        rows = torch.stack([rows_of(others(picked.y, k), self.rows, said != k) for k in range(classes)])
        inputs = _Inputs(model.embed(picked.x), rows.to(model.device))
        with frozen(model.module):
            chosen, odds, share = self._search(model, writer, inputs, classes, rng)
        target, found = int(odds.argmax()), [writer.words(c) for c in chosen]
        return Finding(
            score=float(odds.max() - (odds.median() if classes > 2 else odds.min())),
            target=target,
            trigger=found[target] if float(share[target]) > 0.5 else None,
            per_class=odds,
            evidence={
                "words": [" ".join(map(str, getattr(t, "words", ()))) for t in found],
                "log_odds": [round(v, 3) for v in odds.tolist()],
                "success": [round(v, 3) for v in share.tolist()],
            },
        )

    def work(self, model: Model, rows: int) -> Work:
        writer = token_writer(self, model)
        changes, each = self.rounds * len(writer.free), model.classes * self.rows
        tried = changes * min(self.shortlist, len(writer.candidates)) + 2
        return Work(min(rows, max(4 * self.rows, 2 * model.classes)) + each * tried, each * changes)

    def _search(
        self, model: Model, writer: TokenMixture, e: _Inputs, classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(K, F) candidates of the best trigger of every class, (K,) its mean log-odds and (K,) success share."""
        size, free = len(writer.candidates), len(writer.free)
        chosen = torch.randint(size, (classes, free), generator=rng).to(model.device)
        best = self._odds(model, writer, e, chosen[:, None])[0][:, 0]
        every = torch.arange(classes, device=model.device)
        for _ in range(self.rounds):
            for slot in range(free):
                slope = self._slope(model, writer, e, chosen)[:, slot]
                tried = (slope @ writer.table.T).topk(min(self.shortlist, size), dim=1).indices
                trials = chosen[:, None].repeat(1, tried.shape[1], 1)
                trials[:, :, slot] = tried
                odds = self._odds(model, writer, e, trials)[0]
                top = odds.argmax(1)
                better = odds[every, top] > best
                chosen = torch.where(better[:, None], trials[every, top], chosen)
                best = torch.maximum(best, odds[every, top])
        odds, share = self._odds(model, writer, e, chosen[:, None])
        return chosen.cpu(), odds[:, 0].cpu(), share[:, 0].cpu()

    def _slope(self, model: Model, writer: TokenMixture, e: _Inputs, chosen: Tensor) -> Tensor:
        """(K, F, D) by how much the log-probability of each class grows with the embedding at each position."""
        words = writer.table[chosen].clone().requires_grad_()

        def slope(part: Tensor) -> Tensor:
            at = part.to(model.device)
            k = at // self.rows
            logits = model.logits_at(writer.insert(e.of(k, at % self.rows), words[k], chosen[k]))
            return torch.autograd.grad(-F.cross_entropy(logits, k, reduction="sum"), words)[0]

        return torch.stack(in_parts(model, len(chosen) * self.rows, slope, gradients=True)).sum(0).float()

    @torch.no_grad()
    def _odds(self, model: Model, writer: TokenMixture, e: _Inputs, trials: Tensor) -> tuple[Tensor, Tensor]:
        """(K, T, F) candidates -> (K, T) mean log-odds of each class over its rows, and (K, T) share that reach it."""
        classes, count = trials.shape[:2]
        flat = trials.flatten(0, 1)

        def judge(part: Tensor) -> Tensor:
            at = part.to(model.device)
            trial, k = at // self.rows, at // (self.rows * count)
            logits = model.logits_at(writer.insert(e.of(k, at % self.rows), writer.table[flat[trial]], flat[trial]))
            told = logits.float().log_softmax(1)
            own = told.gather(1, k[:, None])
            others = told.scatter(1, k[:, None], -torch.inf).logsumexp(1)
            return torch.stack([own.squeeze(1) - others, (told.argmax(1) == k).to(told)], 1)

        judged = torch.cat(in_parts(model, len(flat) * self.rows, judge))
        odds, share = judged.view(classes, count, self.rows, 2).mean(2).unbind(2)
        return odds, share


class _Inputs(NamedTuple):
    """Embedded samples, and (K, n) which of them each class's trigger is written on: most serve several classes."""

    e: Encoded
    rows: Tensor

    def of(self, k: Tensor, n: Tensor) -> Encoded:
        """(N,) classes and (N,) places among their rows."""
        return self.e.at(self.rows[k, n])
