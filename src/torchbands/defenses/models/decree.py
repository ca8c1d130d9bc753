"""DECREE: an encoder is backdoored if a small trigger makes the embeddings of all inputs alike."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Encoded, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.trigger import Trigger
from torchbands.modalities.tokens import TokenMixture

from ._alike import alike, search_tokens
from ._inversion import frozen

#: The weight on the size: its bounds, its factor, and how many successes or failures in a row change it.
LEAST, MOST, FACTOR, PATIENCE = 1e-7, 1e5, 5.0, 5
#: Steps without a smaller trigger after which the search ends.
STOP = 100


@method(
    "decree", paper="Feng et al., CVPR 2023, arXiv:2303.15180", needs=("gradients", "features", "clean:128"), version=2
)
class Decree(ModelDetector):
    """Searches for a small trigger that makes the embeddings of different inputs alike. Uses no labels.

    Embeddings are what enters the last linear layer; they are alike where their mean pairwise cosine is above
    `threshold`. The score is minus the trigger's share of the sample (P L1-norm) or, where no trigger succeeds, minus 1
    and what the best cosine lacks. Flagged, for images alone: a share under `flag`. `target` is the class that the
    model's own head gives most samples with the trigger. Read a score beside those of clean models of one recipe: where
    a classifier was tuned as a whole, embeddings of a class are alike without a backdoor.

    Needs: gradients, a linear head that says what the embedding is, a few clean samples.

    Deviations from the paper: the modality's own perturbation where samples are no images, and no rule there. Inserted
    tokens are not relaxed: they are changed one at a time, the gradient ranking all candidates for exact trials, first
    with one token and then with one more until the embeddings are alike. The same `rows` in every step,
    and `steps` of them; the learning rate falls where it does in 1,000 epochs of the paper's large encoders.

    Cost: `starts` x `steps` forward and backward passes of `rows` samples; of tokens, `rounds` x `shortlist` x
    (`rows` + 20) forward passes for every token of every length tried.
    """

    rows: int = 32
    """Clean samples used (paper: batches of 32 to 128)."""
    steps: int = 500
    """Optimizer steps for the trigger."""
    starts: int = 1
    """Random initialisations (paper: one); the smallest trigger is kept. Samples with few features need more."""
    lr: float = 0.5
    """Learning rate of Adam for the first fifth of the steps; then 0.1, and 0.05 in the second half."""
    threshold: float = 0.99
    """Mean cosine similarity above which embeddings count as alike."""
    penalty: float = 1e-3
    """Initial weight of the trigger's size; it adapts to success."""
    rounds: int = 3
    """How often every inserted token is revisited."""
    shortlist: int = 40
    """Candidate tokens evaluated on all rows at each change; ten times as many are evaluated on two rows."""
    flag: float = 0.1
    """An image encoder is flagged when its trigger covers less than this fraction of the image."""
    precision: Literal["float32", "fast"] = "float32"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        if self.rows < 2 or min(self.steps, self.starts, self.rounds, self.shortlist) < 1:
            raise InputError(
                f"{self.name}: rows is at least 2, steps, starts, rounds and shortlist at least 1",
                hint=f"got rows={self.rows}, steps={self.steps}, starts={self.starts}, rounds={self.rounds}, "
                f"shortlist={self.shortlist}",
            )
        picked = clean.sample(self.rows, self.name, seed)
        if len(picked) < 2:
            raise InputError(f"{self.name} compares embeddings of two or more clean samples, got {len(picked)}")
        model = model.at_precision(self.precision)
        e, before = model.embed(picked.x), float(alike(model.features(picked.x)))
        with frozen(model.module):
            if model.modality.discrete:
                found = self._tokens(model, e, seed)
            else:
                found = min((self._pattern(model, e, seed, k) for k in range(self.starts)), key=self._rank)
        assert found.trigger is not None
        logits, features = model.outputs(found.trigger(picked.x, RowRng(seed, torch.arange(len(picked)))))
        cosine = float(alike(features)) if model.modality.discrete else found.cosine
        said, share = logits.argmax(1).bincount(minlength=model.classes), found.size / extent(e)
        reached = cosine > self.threshold
        return Finding(
            score=-share if reached else -1.0 - (self.threshold - cosine),
            flagged=reached and share < self.flag if model.modality.has_pixels else None,
            target=int(said.argmax()),
            trigger=found.trigger,
            evidence={
                "cosine": round(cosine, 4),
                "cosine_before": round(before, 4),
                "reached": reached,
                "size": round(found.size, 3),
                "share": round(share, 4),
                "to_target": round(float(said.max()) / len(picked), 3),
            },
        )

    def _tokens(self, model: Model, e: Encoded, seed: int) -> _Found:
        """The fewest tokens that succeed or, where none do, those of the best cosine."""
        best, chosen = _Found(None, -1.0, 0.0), torch.zeros(0, dtype=torch.int64, device=model.device)
        for count in range(1, 1 + model.modality.most_inserted):
            rng = generator(self.name, seed, count)
            writer = model.modality.inserting(count).perturbation(model, RowRng(seed, torch.arange(1)))
            assert isinstance(writer, TokenMixture)
            chosen, cosine = search_tokens(
                model,
                e,
                writer,
                chosen,
                rounds=self.rounds,
                shortlist=self.shortlist,
                enough=self.threshold,
                rng=rng,
            )
            if cosine > best.cosine:
                best = _Found(writer.words(chosen), cosine, float(len(writer.template)))
            if cosine > self.threshold:
                break
        return best

    def _rank(self, found: _Found) -> tuple[bool, float]:
        """Triggers that succeeded first, the smallest of them; then those of the best cosine."""
        good = found.cosine > self.threshold
        return not good, found.size if good else -found.cosine

    def _pattern(self, model: Model, e: Encoded, seed: int, start: int) -> _Found:
        """The smallest trigger that succeeded or, where none did, that of the best cosine."""
        made = model.modality.perturbation(model, RowRng(seed_of(self.name, seed), torch.tensor([start])))
        optimizer = torch.optim.Adam(made.parameters(), lr=self.lr, betas=(0.5, 0.9))
        which = torch.zeros(len(e.values), dtype=torch.int64, device=model.device)
        weight, wins, losses, idle, waited = self.penalty, 0, 0, 0, 0
        kept, size, best = _state(made), float("inf"), -1.0
        for step in range(self.steps):
            for group in optimizer.param_groups:
                at = step / self.steps
                group["lr"] = self.lr if at < 0.2 else min(self.lr, 0.1 if at < 0.5 else 0.05)
            optimizer.zero_grad(set_to_none=True)
            large = made.size().sum()
            cosine = _descend(model, made, e, which, weight * large)
            seen, taken = torch.stack([cosine, large.detach()]).tolist()
            good = seen > self.threshold
            if better := (taken < size if good else size == float("inf") and seen > best):
                kept, best, size = _state(made), seen, taken if good else size
            waited = 0 if better or size == float("inf") else waited + 1
            if good and waited > STOP:
                break
            optimizer.step()
            made.constrain()
            idle = idle + 1 if good and weight < LEAST else 0
            wins, losses = (wins + 1, 0) if good else (0, losses + 1)
            if idle > 2 * PATIENCE:
                weight, wins = self.penalty, 0
            if wins > PATIENCE:
                weight, wins = min(weight * FACTOR, MOST), 0
            elif losses > PATIENCE:
                weight, losses = weight / FACTOR if weight >= LEAST else weight, 0
        with torch.no_grad():
            for p, value in zip(made.parameters(), kept, strict=True):
                p.copy_(value)
            return _Found(made.harden(0), best, float(made.size().sum()))


def _descend(model: Model, made: Perturbation, e: Encoded, which: Tensor, penalty: Tensor) -> Tensor:
    """Mean cosine of all pairs of rows; the gradient of the penalty less the cosine is left in the perturbation. The
    cosine hangs on all rows together: where these do not fit, their features are made first, and each part again for
    its share of the slope."""
    parts = torch.arange(len(which), device=which.device).split(model.gradient_chunk)
    if len(parts) == 1:
        cosine = alike(model.features_at(made(e, which)))
        (penalty - cosine).backward()
        return cosine.detach()
    penalty.backward()
    with torch.no_grad():
        features = torch.cat([model.features_at(made(e.at(part), which[part])) for part in parts])
    features.requires_grad_()
    cosine = alike(features)
    (slope,) = torch.autograd.grad(-cosine, features)
    for part in parts:
        model.features_at(made(e.at(part), which[part])).backward(slope[part])
    return cosine.detach()


class _Found(NamedTuple):
    trigger: Trigger | None
    cosine: float
    size: float


def _state(made: Perturbation) -> list[Tensor]:
    return [p.detach().clone() for p in made.parameters()]


def extent(e: Encoded) -> int:
    """Units that a trigger can take up at most: positions of a sequence, pixels of an image, or numbers of a row."""
    if e.tokens is not None:
        return e.tokens.shape[1]
    return e.values[0].numel() if e.values.ndim != 4 else e.values[0, 0].numel()
