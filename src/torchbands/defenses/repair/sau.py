"""SAU: finds examples that fool the backdoored and the repaired model alike, and unlearns them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.defense import Repair, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator


@method("sau", paper="Wei et al., NeurIPS 2023, arXiv:2307.10562", needs=("gradients", "weights", "clean:2500"))
class SAU(Repair):
    """Shared adversarial unlearning on the continuous input (pixels, embeddings, fields).

    Inner: signed gradient steps look for a perturbation of each clean row that both models read wrongly and alike, by
    `adversarial` times cross-entropy and minus `shared` times the Jensen-Shannon divergence of their answers. Outer:
    Adam on cross-entropy of the clean rows and on -log(1 - p) of the label that the backdoored model gives a perturbed
    row, where it was fooled.

    Deviations from the paper: the network stays in eval mode (a switch of the public code); batches of 64 instead of
    256 and, for the networks here are small and the updates few, a learning rate 30 times higher, but for pre-trained
    ones. Where samples have no range the radius is a share of four standard deviations of their numbers, about what it
    is of an image's; tokens have a larger one, for a trigger replaces or pushes aside whole words, which the paper's
    radius does not reach; padding is never perturbed. There the price is high: a convolution on SST-2, BadNets in a
    fifth of the rows, went from an attack success of 1.00 to .55 and from an accuracy of .78 to .68.

    Cost: `2 * steps + 4` forward and `2 * steps + 2` backward passes of the clean rows in each round.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"rounds": 10}

    rounds: int = 20
    """Epochs over the clean rows (paper: 100, and 20 on Tiny ImageNet)."""
    batch: int = 64
    """Batch size."""
    lr: float = 3e-3
    """Learning rate of Adam for the weights, with a half-cosine schedule."""
    pretrained_lr: float = 1e-4
    """Learning rate for networks that started from public pre-trained weights (paper: one rate for all)."""
    radius: float = 0.2
    """Bound on the change of each number, as a fraction of the samples' range."""
    token_radius: float = 0.75
    """Bound on the change of token embeddings, as a fraction of their range."""
    steps: int = 5
    """Signed gradient steps of size `radius`, starting from the corner where every number is raised."""
    adversarial: float = 0.01
    """Weight of fooling either model in the search."""
    shared: float = 1.0
    """Weight of fooling both models alike in the search."""
    unlearning: float = 1.0
    """Weight of the unlearning loss relative to the clean cross-entropy."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.batch, self.steps) < 1:
            raise InputError(
                f"{self.name}: rounds, batch and steps are at least 1, got {self.rounds}, {self.batch} and {self.steps}"
            )

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired, given = model.clone(), model.clone()
        repaired.precision = given.precision = "float32"
        rng, device = generator("sau", seed), repaired.device
        e, y = repaired.encode(whole(clean.x)), clean.y.to(device)
        radius = (self.token_radius if model.modality.discrete else self.radius) * spread(given, e)
        parts = math.ceil(len(y) / self.batch)
        learned = [p for p in repaired.module.parameters() if p.requires_grad]
        lr = self.pretrained_lr if hasattr(model.module, "pretrained_state") else self.lr
        optimizer = torch.optim.Adam(learned, lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=parts * self.rounds)
        for _ in range(self.rounds):
            for rows in torch.randperm(len(y), generator=rng).to(device).tensor_split(parts):
                batch = e.at(rows).trimmed()
                delta = self.search(repaired, given, batch, y[rows], radius)
                loss = self._loss(repaired, given, batch, y[rows], delta)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
        repaired.precision = model.precision
        return repaired

    def search(self, repaired: Model, given: Model, e: Encoded, y: Tensor, radius: Tensor) -> Tensor:
        """Perturbations (N, ...) of an encoded batch, none larger than the radius."""
        pair = (repaired, given)
        with torch.no_grad():
            plain = [m.logits_at(embedded(m, e)).argmax(1) for m in pair]
        delta = radius.expand_as(embedded(given, e).values).clone()
        for _ in range(self.steps):
            delta.requires_grad_()
            logits = [moved(m, e, delta) for m in pair]
            read = [z.argmax(1) for z in logits]
            fooled = [a != b for a, b in zip(read, plain, strict=True)]
            alike = fooled[0] & fooled[1] & (read[0] == read[1])
            losses = [F.cross_entropy(z, y, reduction="none").masked_fill(f, 0.0) for z, f in zip(logits, fooled)]
            apart = divergence(logits[0], logits[1]).masked_fill(alike, 0.0)
            loss = (self.shared * apart - self.adversarial * 0.5 * (losses[0] + losses[1])).sum()
            (slope,) = torch.autograd.grad(loss, delta)
            delta = (delta.detach() - radius * slope.sign()).clamp(-radius, radius)
        return delta.detach()

    def _loss(self, repaired: Model, given: Model, e: Encoded, y: Tensor, delta: Tensor) -> Tensor:
        with torch.no_grad():
            before = given.logits_at(embedded(given, e)).argmax(1)
            after = moved(given, e, delta).argmax(1)
        fooled = (after != y) & (after != before)
        clean = F.cross_entropy(repaired.run(e).float(), y)
        logits = moved(repaired, e, delta)
        others = logits.scatter(1, after[:, None], -torch.inf).logsumexp(1) - logits.logsumexp(1)
        unlearn = (-others).clamp_max(-math.log(1e-6)).masked_fill(~fooled, 0.0).sum() / len(y)
        return clean + self.unlearning * unlearn


def embedded(model: Model, e: Encoded) -> Encoded:
    """An encoded batch in the model's continuous space, with gradients into its token embedding."""
    if not model.modality.discrete:
        return e
    return Encoded(model.embedding(e.values).float(), e.mask, e.values)


def moved(model: Model, e: Encoded, delta: Tensor) -> Tensor:
    """Logits of an encoded batch with delta added to its real positions, projected to where samples live."""
    at = embedded(model, e)
    shift = delta if at.mask is None else delta * at.mask[..., None]
    return model.logits_at(Encoded(model.modality.project(at.values + shift), at.mask, at.tokens))


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """(N,) Jensen-Shannon divergences in nats of two models' answers, from (N, K) logits."""
    p, q = a.softmax(1).clamp_min(1e-8), b.softmax(1).clamp_min(1e-8)
    middle = (0.5 * (p + q)).log()
    return 0.5 * ((p * (p.log() - middle)).sum(1) + (q * (q.log() - middle)).sum(1))


def spread(model: Model, e: Encoded) -> Tensor:
    """The width of the samples' range, or four standard deviations of the numbers at real positions."""
    if model.modality.bounds is not None:
        low, high = model.modality.bounds
        return torch.tensor(high - low, device=model.device)
    with torch.no_grad():
        values = embedded(model, e).values
        if e.mask is not None and values.ndim == 3:
            return 4 * values[e.mask].std()
        return 4 * values.flatten(1).std(0, correction=0)[None].reshape(1, *values.shape[1:])
