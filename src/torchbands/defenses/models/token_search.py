"""Token search: the inserted tokens that send samples to one class, over the whole vocabulary, by exact trials."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.modalities.tokens import TokenMixture

from ._inversion import frozen, others, rows_of, token_writer


@method("token-search", paper="after Wallace et al., EMNLP 2019, arXiv:1908.07125", needs=("gradients", "clean:200"))
class TokenSearch(ModelDetector):
    """One universal trigger per class: tokens put before samples of other classes, changed one at a time.

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
    """Samples of other classes, for every target."""
    rounds: int = 3
    """How often every token is changed."""
    shortlist: int = 40
    """Tokens that are tried at every change."""
    precision: Literal["float32", "fast"] = "fast"
    """Of the passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        model = model.at_precision(self.precision)
        classes, rng = model.classes, generator(self.name, seed)
        writer = token_writer(self, model)
        picked = clean.sample(max(4 * self.rows, 2 * classes), self.name, seed, balanced=True)
        said = model.logits(picked.x).argmax(1)
        rows = torch.stack([rows_of(others(picked.y, k), self.rows, said != k) for k in range(classes)])
        e = model.embed(picked.x).at(rows.flatten().to(model.device))
        with frozen(model.module):
            chosen, odds, share = self._search(model, writer, e, classes, rng)
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

    def _search(
        self, model: Model, writer: TokenMixture, e: Encoded, classes: int, rng: torch.Generator
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

    def _slope(self, model: Model, writer: TokenMixture, e: Encoded, chosen: Tensor) -> Tensor:
        """(K, F, D) by how much the log-probability of each class grows with the embedding at each position."""
        words = writer.table[chosen].clone().requires_grad_()
        spread = words.repeat_interleave(self.rows, 0)
        logits = model.logits_at(writer.insert(e, spread, chosen.repeat_interleave(self.rows, 0)))
        wanted = torch.arange(len(chosen), device=model.device).repeat_interleave(self.rows)
        (slope,) = torch.autograd.grad(-F.cross_entropy(logits, wanted, reduction="sum"), words)
        return slope.float()

    @torch.no_grad()
    def _odds(self, model: Model, writer: TokenMixture, e: Encoded, trials: Tensor) -> tuple[Tensor, Tensor]:
        """(K, T, F) candidates -> (K, T) mean log-odds of each class over its rows, and (K, T) share that reach it."""
        classes, count = trials.shape[:2]
        odds, hit = [], []
        for k in range(classes):
            mine = e.at(slice(k * self.rows, (k + 1) * self.rows))
            for part in trials[k].split(max(1, model.chunk // self.rows)):
                flat = part.repeat_interleave(self.rows, 0)
                repeated = mine.at(torch.arange(self.rows, device=model.device).repeat(len(part)))
                logits = model.logits_at(writer.insert(repeated, writer.table[flat], flat)).float()
                told = logits.log_softmax(1)
                others = told.masked_fill(F.one_hot(torch.tensor(k), classes).bool().to(told.device), -torch.inf)
                odds.append((told[:, k] - others.logsumexp(1)).view(len(part), self.rows).mean(1))
                hit.append((logits.argmax(1) == k).view(len(part), self.rows).float().mean(1))
        return torch.cat(odds).view(classes, count), torch.cat(hit).view(classes, count)
