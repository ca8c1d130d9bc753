"""Deep partition aggregation: a row can only poison the one model whose partition it falls into."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor, nn

from torchbands.core.data import Data, take
from torchbands.core.defense import Training
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seed_of
from torchbands.core.task import Progress, Task


@method("partition-aggregation", paper="Levine and Feizi, ICLR 2021, arXiv:2006.14768", needs=("training-run",))
class PartitionAggregation(Training):
    """Rows are dealt to `partitions` models by a hash of their content; the models vote.

    Every answer comes with a certificate: how many rows, at least, must be inserted or deleted to change it.

    Deviations from the paper: none in the method; its settings are 250 to 1,200 partitions of 50,000 rows. The
    partitions' models are trained by the task's own recipe.

    Cost: one training in all, and `partitions` times the inference.
    """

    partitions: int = 50
    """Models that vote; the paper's smallest setting for CIFAR-10."""

    def __post_init__(self) -> None:
        if self.partitions < 2:
            raise InputError(f"{self.name}: partitions is at least 2, got {self.partitions}")

    def train(self, task: Task, data: Data, *, seed: int = 0, progress: Progress | None = None) -> Model:
        part = content_hash(data) % self.partitions
        members: list[nn.Module] = []
        passes = 0
        for k in range(self.partitions):
            rows = (part == k).nonzero().flatten()
            if len(rows) < 2:
                raise InputError(
                    f"partition {k} of {self.partitions} has {len(rows)} rows", hint="use fewer partitions"
                )
            member = task.train(data[rows], seed=seed_of("partition", k, seed))
            passes += member.passes.forward
            members.append(member.module)
            if progress is not None:
                progress(k + 1, self.partitions, "partition")
        model = Model(Votes(members, task.classes), task.modality, task.classes)
        model.passes.forward = passes
        return model


class Votes(nn.Module):
    """How many members choose each class, less a trifle that settles ties for the smaller class."""

    def __init__(self, members: list[nn.Module], classes: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.classes = classes
        self.tie: Tensor
        self.register_buffer("tie", torch.arange(classes) * (0.5 / classes))

    def forward(self, *inputs: Any) -> Tensor:
        votes = torch.stack([member(*inputs).argmax(1) for member in self.members])
        counts = nn.functional.one_hot(votes, self.classes).sum(0).float()
        return counts - self.tie


def certificate(model: Model, x: Any) -> Tensor:
    """(N,) int64: inserting or deleting up to this many training rows cannot change the answer on each row of x."""
    votes = model.logits(x)
    counts, chosen = votes.ceil().long(), votes.argmax(1)
    own = counts.gather(1, chosen[:, None])
    earlier = (torch.arange(model.classes) < chosen[:, None]).long()
    rivals = (counts + earlier).scatter(1, chosen[:, None], -1)
    return (own.squeeze(1) - rivals.amax(1)).div(2, rounding_mode="floor").clamp_min(0)


def content_hash(data: Data, size: int = 4096) -> Tensor:
    """(N,) non-negative int64 of each row's content alone: not of its position, its label or the other rows."""
    return torch.cat([_hash(take(data.x, rows)) for rows in torch.arange(len(data)).split(size)])


def _hash(batch: Any) -> Tensor:
    if not isinstance(batch, Tensor):
        raw = [row.encode() if isinstance(row, str) else bytes(row) for row in batch]
        return torch.tensor([zlib.crc32(row) for row in raw], dtype=torch.int64)
    bits = batch.flatten(1).contiguous().float().cpu().view(torch.int32).long()
    weights = torch.randint(1, 1 << 31, (bits.shape[1],), generator=generator("content hash")) * 2 + 1
    mixed = (bits * weights).sum(1)
    return (mixed ^ (mixed >> 29)) & 0x7FFFFFFFFFFF
