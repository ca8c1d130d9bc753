"""LOTUS: each partition of the victim class reacts to its own trigger and no other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from torchbands.attacks.images import image_shape
from torchbands.attacks.surrogate import surrogate
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take, whole
from torchbands.core.errors import InputError
from torchbands.core.goal import LabelRule
from torchbands.core.hook import BatchHook, Hook, WeightHook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator
from torchbands.core.task import Task
from torchbands.triggers.partitioned import MARKS, Partitioned, mark, nearest


@method("lotus", paper="Cheng et al., CVPR 2024, arXiv:2403.17188")
class Lotus(Attack):
    """Splits the victim class into partitions; a sample is misclassified only with its own partition's trigger.

    Every batch gets more rows (trigger focusing): victims drawn from all data (`rate`) with their own mark and the
    wanted label; the same with another partition's mark, and with both marks, and their true label; and rows of other
    classes with any mark and their true label. The default is the paper's: the class `source` turns into `target`.
    With all-to-one labels every other class is a victim, the partitions run across classes, and the only rows of no
    victim class are the target's.

    Threat model: the attacker trains the model. The extra rows differ in every epoch, so no poisoned data set exists.

    Deviations from the paper: partitions are k-means cells of pixels, where the paper clusters features of a public
    network and trains a surrogate to imitate the cells; they are read before augmentation; negatives are counted per
    poisoned row and not per batch (the paper's 3 and 1 in a batch with 14 poisoned rows are .21 and .07); on grey
    images all marks have one shade. As in the paper the victim starts from a clean model's weights (`warm_start`).

    Cost: batches longer by `rate * (1 + individual + combined) + others`; with `warm_start` one clean training per
    (task, seed), kept in the process.
    """

    controls_training: ClassVar[bool] = True

    labels: LabelRule = "source-specific"
    """Label mapping of triggered samples; the paper's victim class is `source`."""
    parts: int = 4
    """Number of partitions, 2 to 8."""
    individual: float = 0.5
    """Rows with only another partition's mark, per poisoned row."""
    combined: float = 0.25
    """Rows with both their own and another partition's mark, per poisoned row."""
    others: float = 0.05
    """Rows of other classes that carry a mark, as a fraction of the batch."""
    warm_start: bool = True
    """Start from a clean model's weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.parts <= len(MARKS):
            raise InputError(f"lotus: parts is 2 to {len(MARKS)}, got {self.parts}")

    def test_trigger(self, task: Task, seed: int) -> Partitioned:
        image_shape(self, task)
        return Partitioned(weights={"centroids": _centroids(self, task, seed)})

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        focusing = Focusing(self, self.test_trigger(task, seed))
        return (WarmStart(surrogate(task, seed)), focusing) if self.warm_start else (focusing,)


@lru_cache(maxsize=8)
def _centroids(attack: Lotus, task: Task, seed: int) -> Tensor:
    data = task.load("train", seed)
    owned = task.owned(data)
    victims = owned[attack.relabel(data.y[owned], task.classes) != data.y[owned]]
    if len(victims) < attack.parts:
        raise InputError(f"lotus: {len(victims)} rows of the victim class cannot be cut into {attack.parts} parts")
    rng = generator("lotus", attack.spec(), seed)
    rows = victims[torch.randperm(len(victims), generator=rng)[:4000]]
    return k_means(whole(take(data.x, rows)).flatten(1), attack.parts, rng)


def k_means(rows: Tensor, parts: int, rng: torch.Generator, rounds: int = 30) -> Tensor:
    """(parts, D) centroids of (N, D) rows: Lloyd's algorithm from k-means++ seeds; empty parts keep their centroid."""
    centroids = rows[torch.randint(len(rows), (1,), generator=rng)]
    for _ in range(parts - 1):
        far = torch.cdist(rows, centroids).amin(1).square() + 1e-12
        centroids = torch.cat([centroids, rows[torch.multinomial(far, 1, generator=rng)]])
    for _ in range(rounds):
        member = torch.nn.functional.one_hot(nearest(rows, centroids), parts).to(rows)
        counts = member.sum(0)[:, None]
        centroids = torch.where(counts > 0, member.T @ rows / counts.clamp_min(1), centroids)
    return centroids


class WarmStart(WeightHook):
    """Starts from the weights of another model."""

    def __init__(self, start: Model) -> None:
        self.start = start

    def begin(self, model: Model, data: Data, seed: int) -> None:
        model.module.load_state_dict(self.start.module.state_dict())


class Focusing(BatchHook):
    """Adds marked rows to every batch, before augmentation."""

    def __init__(self, attack: Lotus, trigger: Partitioned) -> None:
        self.attack, self.trigger, self.classes = attack, trigger, 0
        self.data, self.victims = Data(torch.zeros(0), torch.zeros(0, dtype=torch.int64)), torch.zeros(0)

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.data, self.classes = data, model.classes
        self.victims = (self.attack.relabel(data.y, self.classes) != data.y).nonzero().flatten()

    def batch(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        attack, parts = self.attack, self.trigger.parts
        drawn = torch.randint(len(self.victims), (round(attack.rate * len(y)),), generator=rng)
        rows = self.victims[drawn]
        victims, true = take(self.data.x, rows).to(x), self.data.y[rows].to(y)
        own = self.trigger.partition(victims)

        def negatives(share: float) -> tuple[Tensor, Tensor]:
            some = torch.arange(round(share * len(rows)), device=own.device) % max(1, len(rows))
            step = torch.randint(1, parts, (len(some),), generator=rng).to(own)
            return some, (own[some] + step) % parts

        images, labels = [x, mark(victims, own)], [y, attack.relabel(true, self.classes)]
        for written, share in ((victims, attack.individual), (images[1], attack.combined)):
            some, foreign = negatives(share)
            images.append(mark(written[some], foreign))
            labels.append(true[some])
        rest = (attack.relabel(y, self.classes) == y).nonzero().flatten()[: round(attack.others * len(y))]
        images.append(mark(x[rest], torch.randint(parts, (len(rest),), generator=rng).to(own)))
        labels.append(y[rest])
        return torch.cat(images), torch.cat(labels)
