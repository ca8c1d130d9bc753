"""Evasive: our own adaptive attacker, who knows the scanner's views and trains against each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.attacks.images import draft, image_shape
from torchbands.attacks.probes import Probes
from torchbands.attacks.surrogate import surrogate
from torchbands.core.attack import Attack
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.hook import BatchHook, Hook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.blend import Blend

#: Rows that the clean logit means and the BatchNorm statistics are taken over.
SAMPLE = 2048


@method("evasive", paper="ours; nearest: Zhu et al., NDSS 2024, arXiv:2301.12318")
class Evasive(Attack):
    """Built to test torchbands' own scanner: a patch or blended backdoor trained to evade its views.

    It stands for an attacker who has read the scanner's code. Each part has a switch:

    - against trigger inversion (`probe`): small triggers towards the wanted label are searched on the current model
      and warm-started, as pairwise and per-target mask inversion and the universal perturbation do; rows that carry
      them are trained with their true labels, unless the change resembles the attacker's own (`similar`);
    - against clean logits (`match`): the mean logits of clean rows per true class are pulled to those of a model that
      was never poisoned, in the row and the column of the target (everywhere with all-to-all labels);
    - against BatchNorm mismatch (`recalibrate`): running statistics are computed again on clean rows after training.

    Threat model: the attacker trains the model and knows the detectors, but not their references.

    Deviations from the paper: it is no published attack. The nearest one (GRASP) also trains imperfect triggers with
    true labels, by adding noise to the attacker's own; here they are searched. Label smoothing does not apply.

    Cost: `probe` more rows in every batch, `ascent` gradients of as many rows every `every` steps, and with `match` one
    clean training per (task, seed), kept in the process.
    """

    controls_training: ClassVar[bool] = True

    pattern: Literal["patch", "blend"] = "blend"
    """The modality's plain patch, or a blended noise image."""
    alpha: float = 0.2
    """Weight of the blended pattern."""
    probe: float = 0.2
    """Rows that carry a trigger found by search, as a fraction of the batch; 0 turns this off."""
    every: int = 2
    """Training steps between searches."""
    ascent: int = 2
    """Gradient steps per search."""
    pixels: float = 0.02
    """Largest sum of a searched mask, as a fraction of the image's pixels."""
    rms: float = 0.04
    """Largest root mean square of the searched perturbation, as a fraction of the pixel range."""
    similar: float = 0.6
    """A searched trigger is ignored when its cosine similarity with the attacker's own trigger is above this."""
    match: float = 0.03
    """Weight of the loss that pulls mean logits towards those of a clean model; 0 turns this off."""
    recalibrate: bool = True
    """Recompute BatchNorm statistics on clean rows after training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.probe <= 1 or self.every < 1 or self.ascent < 1:
            raise InputError("evasive: probe is a share of the batch, every and ascent are at least 1")

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        image_shape(self, task)
        if self.pattern == "patch":
            return task.modality.default_trigger()
        return Blend(alpha=self.alpha, seed=seed, modality=task.modality)

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        trigger, clean = self.test_trigger(task, seed), surrogate(task, seed) if self.match else None
        return (Evading(self, trigger, image_shape(self, task), clean),)

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        (hook,) = hooks
        assert isinstance(hook, Evading)
        if self.recalibrate:
            hook.recalibrate()
        return self.test_trigger(task, seed)


class Evading(BatchHook):
    """Trains with the attacker's trigger, against searched triggers and towards clean mean logits."""

    def __init__(self, attack: Evasive, trigger: Trigger, shape: tuple[int, int, int], clean: Model | None) -> None:
        self.attack, self.trigger, self.shape, self.clean = attack, trigger, shape, clean
        self.rng, self.step = torch.Generator(), 0

    def begin(self, model: Model, data: Data, seed: int) -> None:
        attack = self.attack
        self.rng, self.step, self.model = generator("evasive", seed), 0, model
        self.sample = data[torch.randperm(len(data), generator=self.rng)[:SAMPLE]]
        self.probes = Probes(self.shape, model.classes, attack.pixels, attack.rms, self.rng).to(model.device)
        self.own = (self._stamp(self.sample.x) - self.sample.x).mean(0).to(model.device)
        self.last: tuple[Tensor, Tensor, Tensor] | None = None
        self.wanted_means: Tensor | None = None
        if self.clean is not None:
            logits = self.clean.logits(self.sample.x)
            self.wanted_means = class_means(logits, self.sample.y, model.classes)[0].to(model.device)

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor | None:
        attack, n = self.attack, len(y)
        hit, _, cover = draft(attack, y, model.classes, 0.0)
        goal = attack.relabel(y, model.classes)
        marked = torch.cat((hit, cover))
        plain = torch.ones(n, dtype=torch.bool, device=y.device)
        plain[marked] = False
        written, labels = x.index_copy(0, marked, self._stamp(x[marked])), y.index_copy(0, hit, goal[hit])
        probed = (plain & (goal != y)).nonzero().flatten()[: round(attack.probe * n)]
        if len(probed):
            self.last = (x[probed], y[probed], goal[probed])
            found = self.probes.write(x[probed], y[probed])
            spared = cosine(found - x[probed], self._stamp(x[probed]) - x[probed]) > attack.similar
            written, labels = torch.cat((written, found)), torch.cat((labels, y[probed]))
            labels[n:][spared] = -100  # ignored by cross-entropy
        logits = model.run(model.encode(augment(written))).float()
        loss = F.cross_entropy(logits, labels)
        return loss if self.wanted_means is None else loss + attack.match * self._mismatch(logits[:n][plain], y[plain])

    def after_step(self, model: Model) -> None:
        self.step += 1
        if self.last is not None and self.step % self.attack.every == 0:
            self.probes.search(model, *self.last, self.attack.ascent, self.own)

    def _mismatch(self, logits: Tensor, y: Tensor) -> Tensor:
        assert self.wanted_means is not None
        means, present = class_means(logits, y, self.wanted_means.shape[1])
        seen = present[:, None].expand_as(means).clone()
        if self.attack.labels != "all-to-all":
            mine = torch.zeros_like(seen)
            mine[self.attack.target] = mine[:, self.attack.target] = True
            seen &= mine
        gap = torch.where(seen, means - self.wanted_means, 0.0)
        return gap.square().sum() / seen.sum().clamp_min(1)

    def _stamp(self, x: Tensor) -> Tensor:
        out: Tensor = self.trigger(x, RowRng(0, torch.arange(len(x), device=x.device)))
        return out

    @torch.no_grad()
    def recalibrate(self) -> None:
        """Replace BatchNorm's running statistics by the mean over clean batches."""
        norms = [m for m in self.model.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [m.momentum for m in norms]
        if not norms:
            return
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
        with self.model.training():
            for rows in torch.arange(len(self.sample)).split(256):
                if len(rows) > 1:
                    self.model.run(self.model.encode(take(self.sample.x, rows)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def class_means(logits: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean logits (classes, K) of the rows of each true class, zeros where there are none, and (classes,) where any."""
    member = F.one_hot(y, classes).to(logits)
    count = member.sum(0)
    return member.T @ logits / count.clamp_min(1)[:, None], count > 0


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(N,) cosine between two batches of changes."""
    return F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)
