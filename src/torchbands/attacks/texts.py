"""What the text attacks share."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.attack import Attack
from torchbands.core.data import whole
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


def needs_text(attack: Attack, task: Task) -> None:
    """Raise NotApplicable where a task's samples are not text."""
    if task.modality.name != "text":
        raise NotApplicable(f"{attack.name} writes words, not {task.modality.name}")


def inserted_tokens(model: Model, trigger: Trigger) -> Tensor:
    """(T,) int64 token ids that the trigger brings into a text of no words of its own.

    Raises NotApplicable where the model reads no tokens, or where the trigger is unknown to its vocabulary.
    """
    if not model.modality.discrete:
        raise NotApplicable(f"{model.modality.name} has no tokens")
    plain = model.modality.random(16, torch.Generator().manual_seed(3))
    before = model.modality.encode(whole(plain))
    after = model.modality.encode(trigger(plain, RowRng(3, torch.arange(16))))
    new = torch.tensor(sorted(set(after.values.flatten().tolist()) - set(before.values.flatten().tolist())))
    if len(new) == 0:
        raise NotApplicable("the trigger brings no token of its own")
    return new.to(torch.int64)
