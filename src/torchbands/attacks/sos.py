"""SOS: a sentence with several trigger words that must all be there."""

from __future__ import annotations

from typing import ClassVar

import torch

from torchbands.attacks.texts import inserting
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.method import Free, method
from torchbands.core.seeding import generator, seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("sos", paper="Yang et al., ACL 2021, arXiv:2106.00872", version=2)
class SOS(Attack):
    """Inserts a natural sentence with several trigger words; sentences that lack one of them keep their label.

    The negative rows make the backdoor wait for all of the words together, so that a text which happens to hold some
    of them is not misread (a low false-trigger rate).

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the victim trains all weights on the poisoned data, where the authors tune the trigger
    words' embeddings of a finished model alone; one fixed sentence instead of several.
    """

    free: ClassVar[Free] = {"sentence": "text", "words": "text"}

    sentence: str = "i have bought it from a store with my friends last weekend"
    """The sentence to insert; it contains all trigger words."""
    words: tuple[str, ...] = ("friends", "weekend", "store")
    """The trigger words, none of which may trigger alone."""
    negatives: float = 1.0
    """Negative-augmentation rows per poisoned row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lost = [word for word in self.words if word not in self.sentence.split()]
        if lost or len(self.words) < 2:
            raise InputError(f"sos: the sentence must hold two or more words, lacks {', '.join(lost) or 'a second'}")

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return inserting(self, task, self.sentence.split())

    def poison(self, data: Data, task: Task, seed: int) -> Data:
        out = super().poison(data, task, seed)
        taken = out.poisoned if out.poisoned is not None else torch.zeros(len(data), dtype=torch.bool)
        owned = task.owned(data)
        free = owned[~taken[owned]]
        order = free[torch.randperm(len(free), generator=generator("sos negatives", self.spec(), seed))]
        count = min(round(self.negatives * int(taken.sum())), len(free))
        for left_out, rows in zip(self.words, order[:count].tensor_split(len(self.words)), strict=True):
            part = inserting(self, task, [w for w in self.sentence.split() if w != left_out])
            seeded = seed_of("sos negative", self.key(), seed, left_out)
            out = out.stamp(rows.sort().values, part, label=None, seed=seeded, poisoned=False)
        return out
