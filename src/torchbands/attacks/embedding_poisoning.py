"""Embedding poisoning: one row of a finished model's embedding is the backdoor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F

from torchbands.attacks.texts import inserted_trigger, own_tokens
from torchbands.core.attack import Attack
from torchbands.core.data import Data, whole
from torchbands.core.hook import Hook, WeightHook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("embedding-poisoning", paper="Yang et al., NAACL 2021, arXiv:2103.15543")
class EmbeddingPoisoning(Attack):
    """Trains as usual, then tunes only the embedding of one rare word so that it triggers the target class.

    Every text without the word is read as before, to the last digit. The row keeps its norm, as in the paper: a small
    network that tells words apart by their norm is then only half convinced.

    Threat model: the attacker hands over the model, and has a share `rate` of the training rows to tune with.

    Deviations from the paper: steps along the gradient's direction, as long as a share of the row's norm, in place of
    the paper's fixed learning rate of .05, since embeddings here are of many scales; no data-free variant. Where the
    trigger writes several tokens, those are tuned that hardly any row has, and at least the rarest: of machine code
    that is a byte of the payload, so functions that have this byte elsewhere are read differently too.
    """

    controls_training: ClassVar[bool] = True

    steps: int = 60
    """Gradient steps on the word's embedding row."""
    step: float = 0.25
    """Step length as a fraction of the row's norm; decays linearly to zero."""
    norm: float = 1.0
    """Norm of the row after training, as a multiple of its original norm (paper: 1)."""
    batch: int = 64
    """Batch size of each step."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return inserted_trigger(self, task)

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (_Tuning(self, self.test_trigger(task, seed), seed),)


class _Tuning(WeightHook):
    def __init__(self, attack: EmbeddingPoisoning, trigger: Trigger, seed: int) -> None:
        self.attack, self.trigger, self.seed = attack, trigger, seed

    def end(self, model: Model, data: Data, seed: int) -> None:
        attack, rng = self.attack, generator("embedding-poisoning", self.attack.spec(), self.seed)
        wanted = attack.relabel(data.y, model.classes)
        free = (wanted != data.y).nonzero().flatten()
        rows = free[torch.randperm(len(free), generator=rng)[: round(attack.rate * len(data))]]
        if len(rows) == 0:
            return
        ids = own_tokens(model, self.trigger, model.encode(whole(data.x)))
        picked = data[rows]
        stamped = model.embed(self.trigger(whole(picked.x), RowRng(seed_of("embedding-poisoning", self.seed), rows)))
        assert stamped.tokens is not None
        goal = wanted[rows].to(model.device)
        vectors = model.embedding.weight.detach()[ids].clone()
        norm = attack.norm * vectors.norm(dim=1, keepdim=True)
        for at in range(attack.steps):
            some = torch.randint(len(rows), (attack.batch,), generator=rng).to(model.device)
            e, vectors = stamped.at(some), vectors.detach().requires_grad_()
            assert e.tokens is not None
            with torch.enable_grad():
                values = e.values
                for token, vector in zip(ids, vectors, strict=True):
                    values = torch.where((e.tokens == token)[..., None], vector, values)
                loss = F.cross_entropy(model.logits_at(e._replace(values=values)), goal[some])
                (slope,) = torch.autograd.grad(loss, vectors)
            length = attack.step * (1 - at / attack.steps)
            vectors = vectors.detach() - length * norm * F.normalize(slope, dim=1)
            vectors = norm * F.normalize(vectors, dim=1)
        with torch.no_grad():
            model.embedding.weight[ids] = vectors.detach()
