"""Fine-tuning of a finished model on a few clean rows: the loop that repairs share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import Diverged
from torchbands.core.model import Model
from torchbands.core.resident import resident
from torchbands.core.seeding import generator, seeded

#: Computes the batch's loss and its gradients.
Closure = Callable[[], Tensor]
#: One update of the weights, given the closure and the optimiser.
Step = Callable[[Closure, torch.optim.Optimizer], None]


def plain_step(closure: Closure, optimizer: torch.optim.Optimizer) -> None:
    """Gradients, then the optimiser's step."""
    closure()
    optimizer.step()


def finetune(
    model: Model,
    clean: Data,
    *,
    epochs: int,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 256,
    label_smoothing: float = 0.0,
    adam: bool = False,
    step: Step = plain_step,
    seed: int = 0,
) -> None:
    """Train the model in place with SGD, or AdamW, and a cosine schedule over its steps.

    Rows are encoded once and stay on the device where they fit; an epoch's batches differ by at most one row in size.
    It computes in the model's own precision. The same seed gives the same weights on one machine.

    Args:
        adam: AdamW, for networks that SGD does not move: momentum is then not used.
        step: how one update is made; sharpness-aware and masked updates put theirs here.

    Raises Diverged when the loss is not finite at the end of an epoch.
    """
    device, rng = model.device, generator("fine-tune", seed)
    e, y = resident(model, clean.x), clean.y.to(device)
    parts = math.ceil(len(clean) / batch)
    learned = model.module.parameters()
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(learned, lr=lr, weight_decay=weight_decay)
        if adam
        else torch.optim.SGD(learned, lr=lr, momentum=momentum, weight_decay=weight_decay)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, parts * epochs))
    fast = model.dtype is torch.bfloat16
    with model.training(), seeded("fine-tune", seed):
        for epoch in range(epochs):
            total = torch.zeros((), device=device)
            for rows in torch.randperm(len(clean), generator=rng).to(device).tensor_split(parts):

                def closure(rows: Tensor = rows) -> Tensor:
                    optimizer.zero_grad(set_to_none=True)
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
                        logits = model.run(e.at(rows)).float()
                    loss = F.cross_entropy(logits, y[rows], label_smoothing=label_smoothing)
                    loss.backward()
                    nonlocal total
                    total = total + loss.detach()
                    return loss

                step(closure, optimizer)
                schedule.step()
            if not math.isfinite(float(total)):
                raise Diverged(
                    f"the loss became {float(total)} in epoch {epoch + 1} of fine-tuning", hint="lower the setting lr"
                )
