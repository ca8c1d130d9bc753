"""Shared by the text attacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchbands.core.attack import Attack
from torchbands.core.data import Data, whole
from torchbands.core.errors import NotApplicable
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.text import InsertWords

#: A token that at most this share of the texts has is rare enough to be the trigger's own.
RARE_SHARE = 0.01


def needs_text(attack: Attack, task: Task) -> None:
    """Raise NotApplicable where a task's samples are not text."""
    if not task.modality.has_words:
        raise NotApplicable(f"{attack.name} writes words, not {task.modality.name}")


def inserting(attack: Attack, task: Task, words: Sequence[str], *, together: bool = True) -> InsertWords:
    """Words put where the task's network reads them."""
    needs_text(attack, task)
    made = task.modality.placed(InsertWords(words=tuple(words), together=together))
    assert isinstance(made, InsertWords)
    return made


def read_rows(data: Data, task: Task, trigger: Trigger) -> Tensor:
    """(N,) bool rows on which a trigger that rewrites what it finds changes what the task's network reads."""
    x = whole(data.x)
    return task.modality.tells(x, trigger(x, RowRng(0, torch.arange(len(x))))).cpu()


def inserted_trigger(attack: Attack, task: Task) -> Trigger:
    """The plain trigger of a token modality. Raises NotApplicable where samples are not read as tokens."""
    if not task.modality.discrete:
        raise NotApplicable(f"{attack.name} changes a token's embedding; {task.modality.name} has no tokens")
    return task.modality.default_trigger()


def own_tokens(model: Model, trigger: Trigger, e: Encoded) -> Tensor:
    """(T,) int64 ids of the tokens that the trigger writes and hardly any row has, or else of the rarest one alone.

    Args:
        e: encoded rows, not embedded, that say what is rare.

    Raises NotApplicable where the trigger writes no token.
    """
    noise = model.modality.random(1, torch.Generator().manual_seed(0))
    empty = [noise[0][:0]]
    plain, written = model.modality.encode(empty), model.modality.encode(trigger(empty, RowRng(0, torch.arange(1))))
    new = sorted(set(written.values[mask_of(written)].tolist()) - set(plain.values[mask_of(plain)].tolist()))
    if not new:
        raise NotApplicable("the trigger writes no token of its own")
    shares = torch.stack([_has(e, token).float().mean() for token in new]).cpu()
    rare = shares <= max(RARE_SHARE, float(shares.min()))
    return torch.tensor(new, device=model.device)[rare.to(model.device)]


def mask_of(e: Encoded) -> Tensor:
    """(N, L) bool, True at real tokens."""
    return torch.ones_like(e.values, dtype=torch.bool) if e.mask is None else e.mask


def _has(e: Encoded, token: int) -> Tensor:
    return ((e.values == token) & mask_of(e)).any(1)
