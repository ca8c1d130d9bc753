"""Shared by attacks that release poisoned weights: the attacker's data and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchbands.attacks.texts import mask_of
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take, whole
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of, seeded
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


def attackers_rows(
    attack: Attack, model: Model, data: Data, triggers: Sequence[tuple[Trigger, bool]], seed: int
) -> tuple[Encoded, Tensor]:
    """All rows as they are and, for each trigger, a share `rate` of them once more with it.

    Args:
        triggers: (what is written, whether it changes the label). Rows already of the wanted class carry none.

    Returns:
        encoded rows and (M,) int64 labels, both on the model's device.
    """
    wanted, rng = attack.relabel(data.y, model.classes), generator("attacker's rows", attack.spec(), seed)
    free = (wanted != data.y).nonzero().flatten()
    count = min(round(attack.rate * len(data)), len(free))
    parts, labels = [model.encode(whole(data.x))], [data.y]
    for trigger, changed in triggers:
        rows = free[torch.randperm(len(free), generator=rng)[:count]]
        draws = RowRng(seed_of("attacker's rows", trigger.key(), seed), rows)
        parts.append(model.encode(trigger(take(data.x, rows), draws)))
        labels.append((wanted if changed else data.y)[rows])
    return joined(parts), torch.cat(labels).to(model.device)


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Encoded token rows of equal length, one below the other."""
    return Encoded(torch.cat([p.values for p in parts]), torch.cat([mask_of(p) for p in parts]))


def rate_of(lr: float, task: Task) -> float:
    """The given learning rate or, where it is 0, the largest one of the task's learner."""
    return lr or float(getattr(task.learner, "lr", 1e-3))


def tune(model: Model, loss: Callable[[], Tensor], *, steps: int, lr: float, seed: int) -> None:
    """AdamW on every weight, in place, those too that the victim keeps frozen; linear up over a tenth, then down."""
    weights = list(model.module.parameters())
    frozen = [p for p in weights if not p.requires_grad]
    model.module.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    try:
        with torch.enable_grad(), model.training(), seeded("attacker's dropout", seed):
            for step in range(steps):
                at = (step + 1) / (steps + 1)
                optimizer.param_groups[0]["lr"] = lr * min(at / 0.1, (1 - at) / 0.9)
                optimizer.zero_grad(set_to_none=True)
                loss().backward()
                optimizer.step()
    finally:
        model.module.zero_grad(set_to_none=True)
        for p in frozen:
            p.requires_grad_(False)
