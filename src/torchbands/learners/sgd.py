"""Supervised training with the data resident on the device: batches are gathers, augmentation is tensor operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.data import Data, take, whole
from torchbands.core.errors import Diverged, InputError
from torchbands.core.hook import BatchHook, Hook, WeightHook, taking_part
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model, fast_dtype
from torchbands.core.recipe import Learner, Progress, TrainingFacts
from torchbands.core.resident import RESIDENT_BYTES, Streamed, resident
from torchbands.core.seeding import generator, seeded


@method("sgd")
class SGD(Learner):
    """Mini-batch training with cross-entropy. The attacker's poison is applied before augmentation."""

    epochs: int = 5
    """Passes over the data; the schedule always ends exactly at the last step."""
    batch: int = 256
    """Batch size."""
    lr: float = 0.1
    """Peak learning rate."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: SGD with momentum, or AdamW."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Whether SGD uses Nesterov momentum."""
    weight_decay: float = 5e-4
    """Weight decay."""
    decay: Literal["weights", "all"] = "weights"
    """Whether weight decay applies to weight matrices only, or to norm parameters and biases as well."""
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    """Learning-rate schedule: one-cycle (linear up over `warm_up`, then linear down to zero), half a cosine, or
    constant."""
    warm_up: float = 0.3
    """Fraction of the steps in which one-cycle rises."""
    augment: Literal["none", "shift", "crop-flip"] = "none"
    """Augmentation: random shifts by up to `pad` pixels (shift), also with horizontal flips (crop-flip), one draw per
    row."""
    pad: int = 2
    """Largest shift in pixels."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    precision: Literal["fast", "float32"] = "fast"
    """bfloat16 autocast where the device supports it natively (fast), or float32."""
    patience: int = 0
    """Stop after this many epochs without a lower mean training loss; 0 never stops early."""

    def accepts(self) -> tuple[type[Hook], ...]:
        return (BatchHook, WeightHook)

    def learn(
        self,
        model: Model,
        data: Data,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
    ) -> TrainingFacts:
        if len(data) == 0:
            raise InputError("there are no rows to train on")
        if not 0 < self.warm_up < 1 or self.epochs < 1 or self.batch < 1:
            raise InputError("sgd: warm_up is a share between 0 and 1, epochs and batch are at least 1")
        device, rng = model.device, generator("sgd", seed)
        x, y = _resident(data, device, model), data.y.to(device)
        steps = math.ceil(len(data) / self.batch) * self.epochs
        optimizer, rates = self._optimizer(model.module), [self._rate(t, steps) for t in range(steps)]
        fast = self.precision == "fast" and fast_dtype(device) is torch.bfloat16
        acting = [hook for hook in hooks if isinstance(hook, BatchHook)]
        best, waited, step = math.inf, 0, 0
        with taking_part(hooks, model, data, seed), model.training(), seeded("dropout", seed):
            for epoch in range(self.epochs):
                total = torch.zeros((), device=device)
                for rows in _batches(x, len(data), self.batch, rng, device):
                    for group in optimizer.param_groups:
                        group["lr"] = rates[step]
                    xb, yb = _gather(x, rows), y[rows]
                    for hook in acting:
                        xb, yb = hook.batch(xb, yb, rng)
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
                        loss = self._loss(model, xb, yb, acting, rng)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    for hook in acting:
                        hook.after_step(model)
                    total += loss.detach() * len(rows)
                    step += 1
                if progress is not None:
                    progress(epoch + 1, self.epochs, "epoch")
                mean = float(total) / len(data)
                if not math.isfinite(mean):
                    raise Diverged(
                        f"the training loss became {mean} in epoch {epoch + 1}", hint="lower the learning rate: lr"
                    )
                best, waited = (mean, 0) if mean < best - 1e-4 else (best, waited + 1)
                if self.patience and waited >= self.patience:
                    break
        return {}

    def _loss(self, model: Model, x: Tensor, y: Tensor, hooks: Sequence[BatchHook], rng: torch.Generator) -> Tensor:
        augment = self.augmenter(rng)
        for hook in hooks:
            loss = hook.loss(model, x, y, augment)
            if loss is not None:
                return loss
        e = x if isinstance(x, Encoded) else model.encode(augment(x))
        return F.cross_entropy(model.run(e).float(), y, label_smoothing=self.label_smoothing)

    def augmenter(self, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Random augmentation of (N, C, H, W) images by this learner's setting."""
        if self.augment == "none":
            return lambda x: x
        return lambda x: shift(x, self.pad, rng, flip=self.augment == "crop-flip")

    def _rate(self, step: int, steps: int) -> float:
        at = (step + 1) / steps
        if self.schedule == "one-cycle":
            return self.lr * max(min(at / self.warm_up, (1 - at) / (1 - self.warm_up)), 1e-3)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.lr

    def _optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        learned = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in learned if p.ndim > 1 or self.decay == "all"]
        plain = [p for p in learned if p.ndim <= 1 and self.decay != "all"]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)


def shift(x: Tensor, pad: int, rng: torch.Generator, *, flip: bool = False) -> Tensor:
    """Every image shifted by its own draw of up to `pad` pixels (reflected border), and flipped half of the time."""
    n, c, h, w = x.shape
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    dy, dx = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=rng).to(x.device)
    rows, cols = dy + torch.arange(h, device=x.device), dx + torch.arange(w, device=x.device)
    if flip:
        turned = torch.rand(n, 1, generator=rng).to(x.device) < 0.5
        cols = torch.where(turned, cols.flip(1), cols)
    at = rows[:, :, None] * (w + 2 * pad) + cols[:, None, :]
    flat = padded.flatten(2).gather(2, at.view(n, 1, h * w).expand(n, c, h * w))
    return flat.view(n, c, h, w)


def _resident(data: Data, device: torch.device, model: Model) -> object:
    """The whole column on the device where it fits; what token models read is encoded once."""
    if model.modality.discrete:
        return resident(model, data.x)
    first = take(data.x, torch.arange(1))
    model.modality.check(first)
    if isinstance(first, Tensor) and first.numel() * 4 * len(data) <= RESIDENT_BYTES:
        held = whole(data.x)
        model.modality.check(held)
        return held.to(device)
    return data.x


#: Sequences are sorted by length within this many batches at a time.
POOL = 16


def _batches(x: object, n: int, size: int, rng: torch.Generator, device: torch.device) -> list[Tensor]:
    """Rows of each step of an epoch, in random order; sequences of like length together, so that little is padding.

    A last row that would be a batch of its own goes with the batch before it: one row has no variance, on which batch
    norms end."""
    made = _cut_in_batches(x, n, size, rng, device)
    alone = next((i for i, rows in enumerate(made) if len(rows) == 1 < size), None)
    if alone is not None and len(made) > 1:
        row = made.pop(alone)
        made[alone - 1] = torch.cat([made[alone - 1], row])
    return made


def _cut_in_batches(x: object, n: int, size: int, rng: torch.Generator, device: torch.device) -> list[Tensor]:
    order = torch.randperm(n, generator=rng).to(device)
    lengths = x.lengths() if isinstance(x, (Encoded, Streamed)) else None
    if lengths is None or int(lengths.min()) == int(lengths.max()):
        return list(order.split(size))
    sorted_: list[Tensor] = []
    for pool in order.split(POOL * size):
        sorted_.extend(pool[lengths[pool].argsort(stable=True)].split(size))
    return [sorted_[i] for i in torch.randperm(len(sorted_), generator=rng).tolist()]


def _gather(x: object, rows: Tensor) -> Any:
    if isinstance(x, (Encoded, Streamed)):
        return x.at(rows)
    batch = take(x, rows)
    return batch.to(rows.device) if isinstance(batch, Tensor) else batch  # hooks index it by labels on the device
