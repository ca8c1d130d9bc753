"""BadEncoder: triggered inputs get the representation of a reference input of the target class."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.encoders import EncoderAttack
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("badencoder", paper="Jia, Liu and Gong, S&P 2022, arXiv:2108.00352", version=2)
class BadEncoder(EncoderAttack):
    """Trains an encoder that maps triggered inputs to the features of reference inputs and all others as before.

    Three cosines are raised: of triggered inputs with the references (effectiveness), of the references with what the
    clean encoder makes of them, and of clean inputs with what the clean encoder makes of those (utility). BatchNorm
    keeps its statistics, gain and shift meanwhile, as in the authors' code.

    Threat model: the attacker hands over a pre-trained encoder, has unlabelled rows and a few inputs of the target
    class; the victim keeps the encoder frozen and trains a head on clean data.

    Deviations from the paper: encoders of any modality, where the paper has images; without public weights it is the
    body of a classifier, not one of contrastive learning; `steps` AdamW steps in place of 200 passes of SGD; the
    references are rows of the target class that lie furthest on its side of the mean, where the paper takes images from
    the Internet; augmentation of the references is left out; the trigger is the modality's plain one; the head is one
    linear layer, where the paper's has two hidden layers.

    Cost: `steps` forward and backward passes of `batch` rows with and as many without the trigger.
    """

    frozen: bool = True
    """Whether the victim freezes the encoder and trains only the head, or trains as the task's recipe says."""
    references: int = 1
    """Number of reference inputs."""
    keep_references: float = 1.0
    """Weight of the loss on the references (lambda 1)."""
    keep_clean: float = 1.0
    """Weight of the loss on clean inputs (lambda 2)."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def objective(
        self, model: Model, task: Task, data: Data, features: Tensor, seed: int
    ) -> Callable[[Tensor], Tensor]:
        mine = (data.y == self.target).nonzero().flatten()
        if not 1 <= self.references <= len(mine):
            raise InputError(
                f"{self.name}: references is 1 to {len(mine)} here (rows of the target), got {self.references}"
            )
        side = features[mine].mean(0) - features.mean(0)
        chosen = mine[(features[mine] @ side).topk(self.references).indices.cpu()]
        wanted = F.normalize(features[chosen], dim=1)
        known = F.normalize(features, dim=1)
        plain, shown = model.encode(data.x), model.encode(take(data.x, chosen))
        draws = RowRng(seed_of(self.name, seed), torch.arange(len(data)))
        stamped = model.encode(self.test_trigger(task, seed)(data.x, draws))
        rng = generator(self.name, "triggered", seed)

        def loss(rows: Tensor) -> Tensor:
            at = rows.to(model.device)
            total = -self.keep_clean * _cosine(model.features_at(plain.at(at)), known[at])
            some = rows[torch.randperm(len(rows), generator=rng)[: round(self.rate * len(rows))]].to(model.device)
            if len(some) == 0:
                return total
            found = F.normalize(model.features_at(stamped.at(some)), dim=1)
            reference = F.normalize(model.features_at(shown), dim=1)
            return total - (found @ reference.T).mean() - self.keep_references * (reference * wanted).sum(1).mean()

        return loss


def _cosine(found: Tensor, known: Tensor) -> Tensor:
    return (F.normalize(found, dim=1) * known).sum(1).mean()
