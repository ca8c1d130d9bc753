"""Deep partition aggregation: one vote per disjoint part of the data, with a certificate against poisoning."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.data import Batch, Column, Data, take
from torchbands.core.defense import Training
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.passes import Passes
from torchbands.core.recipe import Progress, Recipe
from torchbands.core.seeding import generator, seed_of


@method("partition-aggregation", paper="Levine and Feizi, ICLR 2021, arXiv:2006.14768", needs=("training-run",))
class PartitionAggregation(Training):
    """Partitions the rows by a hash of their content and takes a vote of one model per partition (DPA).

    A row can change the model of its own part alone, so each changed vote costs the attacker one inserted or removed
    row: `PartitionModel.certificate` says how many leave a prediction as it is. Ties go to the smaller class.

    Deviations from the paper: 10 parts by default; the paper has 50 to 250 for CIFAR-10 and 1,200 to 3,000 for
    MNIST, which leave too few rows each at this toolkit's scale (set `partitions`); network and learner are
    the task's, with `stretch` times its epochs (where it has them), for few rows make few steps.
    """

    contract_rate: ClassVar[float] = 0.02  # a vote of 10 parts outvotes little poison only

    partitions: int = 10
    """Number of disjoint partitions (k)."""
    stretch: int = 4
    """Factor on the learner's epochs for each partition."""

    def __post_init__(self) -> None:
        if self.partitions < 1 or self.stretch < 1:
            raise InputError(f"partitions and stretch are at least 1, got {self.partitions} and {self.stretch}")

    def train(self, recipe: Recipe, data: Data, *, seed: int = 0, progress: Progress | None = None) -> Model:
        epochs = getattr(recipe.learner, "epochs", None)
        if epochs is not None:
            recipe = recipe.but(learner=recipe.learner.but(epochs=epochs * self.stretch))
        hashed = content_hash(data.x)
        part = hashed.remainder(self.partitions)
        sizes = torch.bincount(part, minlength=self.partitions)
        if int(sizes.min()) == 0:
            raise InputError(
                f"{len(data)} rows leave some of {self.partitions} parts empty", hint="lower the setting partitions"
            )
        order = hashed.argsort(stable=True)  # within a part the order is the content's, not the data set's
        voters: list[Model] = []
        for k in range(self.partitions):
            voters.append(recipe.train(data[order[part[order] == k]], seed=seed_of("partition", seed, k)))
            if progress is not None:
                progress(k + 1, self.partitions, "part")
        passes = Passes(sum(v.passes.forward for v in voters), set().union(*(v.passes.dtypes for v in voters)))
        return PartitionModel(Voting([v.module for v in voters]), recipe.modality, recipe.classes, passes=passes)


class Voting(nn.Module):
    """Logits are vote counts: (N, K) of how many voters say each class. The first largest is the smaller class."""

    def __init__(self, voters: list[nn.Module]) -> None:
        super().__init__()
        self.voters = nn.ModuleList(voters)

    def forward(self, *args: Any, **options: Any) -> Tensor:
        logits = [voter(*args, **options) for voter in self.voters]
        votes = [F.one_hot(each.argmax(1), each.shape[1]) for each in logits]
        return torch.stack(votes).sum(0).float()


class PartitionModel(Model):
    """A vote of models trained on disjoint parts."""

    def __init__(self, module: nn.Module | None, modality: Modality, classes: int, **options: Any) -> None:
        super().__init__(module, modality, classes, **options)

    def certificate(self, x: Batch | Column) -> Tensor:
        """(N,) int64: how many rows inserted into or removed from the training data leave each prediction as it is."""
        return certificate(self.logits(x))


def certificate(votes: Tensor) -> Tensor:
    """floor((n1 - n2 - [the runner-up wins ties]) / 2) of (N, K) vote counts, where n2 is the strongest other class."""
    votes = votes.round().long()
    winner = votes.argmax(1, keepdim=True)
    classes = torch.arange(votes.shape[1], device=votes.device)
    rivals = (votes + (classes < winner)).scatter(1, winner, -1)
    lead: Tensor = votes.gather(1, winner).squeeze(1) - rivals.amax(1)
    return lead.div(2, rounding_mode="floor")


#: Bytes of content that are mixed at once: each of them is held as a few 64-bit words then.
MIXED = 1 << 22


def content_hash(x: Batch | Column) -> Tensor:
    """(N,) int64 >= 0 of every row's content alone, whatever its position, label or neighbours."""
    if len(x) == 0:
        return torch.zeros(0, dtype=torch.int64)
    first = take(x, torch.arange(1))
    size = max(1, MIXED // first[0].nbytes) if isinstance(first, Tensor) else 4096
    return torch.cat([_hash(take(x, rows)) for rows in torch.arange(len(x)).split(size)])


@lru_cache(maxsize=2)
def _factors(width: int) -> Tensor:
    return torch.randint(-(2**62), 2**62, (width,), generator=generator("content")) | 1


def _hash(batch: Batch) -> Tensor:
    if not isinstance(batch, Tensor):
        rows = [row.encode() if isinstance(row, str) else bytes(row) for row in batch]
        return torch.tensor([int.from_bytes(hashlib.sha256(row).digest()[:7], "big") for row in rows])
    words = batch.cpu().contiguous().flatten(1).view(torch.uint8).long()
    mixed = words.add_(1).mul_(_factors(words.shape[1])).sum(1)
    mixed = (mixed ^ ((mixed >> 29) & 0x7FFFFFFFF)) * -4658895280553007687
    return (mixed >> 20) & 0x7FFFFFFFFFF
