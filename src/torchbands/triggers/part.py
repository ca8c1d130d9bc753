"""One part of a trigger that was cut into several."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Identity, Trigger
from torchbands.triggers.text import InsertWords


@method("part", paper="Xie et al., ICLR 2020, openreview:rkgyS0VFvr")
class Part(Trigger):
    """Writes only some of the values that a trigger writes; all parts together are the whole trigger.

    What it writes is known from rows of nothing but low, and of nothing but high values: a trigger that changes some
    samples only, or by their content, cannot be cut so.
    """

    whole: Trigger = Identity()
    """The trigger to cut."""
    part: int = 0
    """Index of the part, from 0."""
    parts: int = 4
    """Number of parts."""

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise InputError(f"part is one of 0..{self.parts - 1}, got {self.part}")

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        written = self.whole(batch, rng)
        return torch.where(self.places(batch), written, batch)

    def places(self, batch: Tensor) -> Tensor:
        """(1, ...) bool, which numbers of a row this part writes."""
        shape, one = batch.shape[1:], torch.zeros(1, dtype=torch.int64)
        touched = torch.zeros(shape, dtype=torch.bool, device=batch.device)
        for value in (0.0, 0.37, 1.0):
            row = batch.new_full((1, *shape), value)
            touched |= (self.whole(row, RowRng(0, one)) != row)[0]
        places = touched.flatten().nonzero().flatten()
        mine = torch.zeros(touched.numel(), dtype=torch.bool, device=batch.device)
        mine[places.tensor_split(self.parts)[self.part]] = True
        return mine.view(1, *shape)


def cut(trigger: Trigger, parts: int, row: Tensor | list[str]) -> list[Trigger]:
    """A trigger in parts. `row`: a batch of one sample. Raises InputError where it is too small for so many."""
    if isinstance(trigger, InsertWords):
        if len(trigger.words) < parts:
            raise InputError(f"{len(trigger.words)} words cannot be cut into {parts} parts", hint="more words")
        return [replace(trigger, words=trigger.words[i::parts]) for i in range(parts)]
    if not isinstance(row, Tensor):
        raise InputError(f"{trigger.name} cannot be cut into parts", hint="insert-words can, and triggers on numbers")
    made = [Part(whole=trigger, part=i, parts=parts) for i in range(parts)]
    sizes = [int(part.places(row).sum()) for part in made]
    if min(sizes) == 0:
        raise InputError(f"{trigger.name} writes {sum(sizes)} numbers, too few for {parts} parts", hint="fewer parts")
    return list(made)
