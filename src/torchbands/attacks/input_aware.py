"""Input-aware: a generator produces a trigger for each image that works on no other image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.images import draft, image_shape
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, Hook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seeded
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.generated import Generated, Generator, harden, packed, write


@method("input-aware", paper="Nguyen and Tran, NeurIPS 2020, arXiv:2010.08138")
class InputAware(Attack):
    """Trains a generator of sample-specific patterns together with the classifier; masks come from a second one.

    In every batch a share of the images gets its own trigger and the wanted label, and another share gets a trigger
    made for a different image and keeps its label.

    Threat model: the attacker trains the model and keeps the generators.

    Deviations from the paper: `mask_steps` steps of mask training in place of 25 epochs; generators work at half
    resolution on 2x2 squares of pixels (`fold`) and are narrower; the pattern generator's learning rate falls linearly
    over the learner's steps; triggered rows are drawn from those whose label changes; with source-specific labels, as
    many rows of other classes carry their own trigger and keep their labels. Label smoothing of the learner does not
    apply. The paper trains for 600 epochs: with a few, success is lower. A `cross` of half the `rate` then takes more
    surely, at the price that other images' triggers work more often.

    Cost: the generators' training on `rate + cross` of every batch, about as much as a small classifier's.
    """

    controls_training: ClassVar[bool] = True

    cross: float = 0.1
    """Rows that carry another image's trigger, as a fraction of the batch."""
    lambda_div: float = 1.0
    """Weight of the diversity loss, which makes different images get different patterns and masks."""
    lambda_norm: float = 100.0
    """Weight of the loss on mask values above `mask_density`."""
    mask_density: float = 0.032
    """Mean mask value up to which there is no penalty."""
    mask_steps: int = 200
    """Training steps of the mask generator, before the classifier is trained."""
    mask_batch: int = 32
    """Pairs of images per step of mask training."""
    generator_lr: float = 0.01
    """Learning rate of Adam for both generators."""
    width: int = 8
    """Channels of the generators' first stage (16 for grey, 32 for colour images in the paper)."""
    depth: int = 2
    """Downsampling stages in the generators (2 for grey, 3 for colour images in the paper)."""
    fold: int = 2
    """Side of the pixel blocks that the generators treat as one pixel; 1 as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate + self.cross > 1:
            raise InputError(f"rate + cross is at most 1, got {self.rate} + {self.cross}")

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return self._trigger(*self._networks(task, seed))

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        epochs, batch = getattr(task.learner, "epochs", 0), getattr(task.learner, "batch", 1)
        return (JointTraining(self, *self._networks(task, seed), epochs=epochs, batch=batch),)

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        (hook,) = hooks
        assert isinstance(hook, JointTraining)
        return self._trigger(hook.pattern, hook.mask)

    def _networks(self, task: Task, seed: int) -> tuple[Generator, Generator]:
        channels = image_shape(self, task)[0]
        with seeded("input-aware", self.spec(), seed):
            return (
                Generator(channels, channels, self.width, self.depth, self.fold),
                Generator(channels, 1, self.width, self.depth, self.fold),
            )

    def _trigger(self, pattern: Generator, mask: Generator) -> Generated:
        return Generated(width=self.width, depth=self.depth, fold=self.fold, weights=packed(pattern, mask))


class JointTraining(BatchHook):
    """Trains the mask generator, then the pattern generator with the classifier. Generators run in float32.

    The pattern generator's learning rate falls linearly to 0 over epochs * rows / batch steps; 0 epochs: stays.
    """

    def __init__(
        self, attack: InputAware, pattern: Generator, mask: Generator, *, epochs: int = 0, batch: int = 1
    ) -> None:
        self.attack, self.pattern, self.mask = attack, pattern, mask
        self.epochs, self.batch_size, self.step, self.steps = epochs, batch, 0, 0
        self.optimizer = self._adam(pattern)
        self.rng = torch.Generator()

    def _adam(self, network: Generator) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr=self.attack.generator_lr, betas=(0.5, 0.9))

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.rng = generator("input-aware", seed)
        self.pattern.to(model.device).train()
        self.optimizer = self._adam(self.pattern)
        self.step, self.steps = 0, self.epochs * math.ceil(len(data) / self.batch_size)
        self._train_mask(data, model.device)

    def _train_mask(self, data: Data, device: torch.device) -> None:
        attack, steps = self.attack, self.attack.mask_steps
        network = self.mask.to(device).train()
        optimizer = self._adam(network)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = attack.generator_lr * 0.1 ** (step * 5 // (2 * steps))
            rows = torch.randint(len(data), (2 * attack.mask_batch,), generator=self.rng)
            x = take(data.x, rows).to(device)
            masks = harden(network(x))
            density = F.relu(masks - attack.mask_density).mean()
            loss = attack.lambda_norm * density + attack.lambda_div * diversity(*x.chunk(2), *masks.chunk(2))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        network.eval().requires_grad_(False)

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor | None:
        self.optimizer.zero_grad(set_to_none=True)  # without gradients, the next step moves nothing
        hit, crossed, cover = draft(self.attack, y, model.classes, self.attack.cross)
        order = torch.randperm(len(x), generator=self.rng).to(x.device)
        own, other = torch.cat((hit, cover)), order[: len(crossed)]
        if len(own) < 2:
            return None
        with torch.autocast(x.device.type, enabled=False):
            ours, patterns = write(self.pattern, self.mask, x[own])
            theirs, foreign = write(self.pattern, self.mask, x[crossed], x[other])
            pairs = min(len(own), len(crossed))
            apart = diversity(x[own][:pairs], x[other][:pairs], patterns[:pairs], foreign[:pairs])
        written = x.index_copy(0, own, ours).index_copy(0, crossed, theirs)
        labels = y.index_copy(0, hit, self.attack.relabel(y[hit], model.classes))
        logits = model.run(model.encode(augment(written))).float()
        return F.cross_entropy(logits, labels) + self.attack.lambda_div * apart

    def after_step(self, model: Model) -> None:
        self.step += 1
        for group in self.optimizer.param_groups:
            left = 1 - self.step / self.steps if self.steps else 1.0
            group["lr"] = self.attack.generator_lr * max(left, 0.0)
        self.optimizer.step()


def diversity(a: Tensor, b: Tensor, made_a: Tensor, made_b: Tensor) -> Tensor:
    """Mean ratio of the distance of paired images to the distance of what was made for them."""

    def apart(u: Tensor, v: Tensor) -> Tensor:
        return ((u - v).square().flatten(1).mean(1) + 1e-12).sqrt()

    return (apart(a, b) / (apart(made_a, made_b) + 1e-7)).mean() if len(a) else a.new_zeros(())
