"""The re-activation test: does a handful of poisoned samples bring a removed backdoor back?

After the retuning attack of Min et al., NeurIPS 2024, arXiv:2410.09838: a repaired model is fine-tuned for a few epochs
on clean rows and 5 samples that carry the trigger with the attacker's label. A backdoor that was only silenced comes
back; but any model learns a little from 5 samples, so the result is only meaningful relative to a control.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from torchbands.core.data import Batch, Data, concat, whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.trigger import Trigger
from torchbands.defenses.models._inversion import Quick, frozen, search
from torchbands.learners.finetune import finetune

#: Poisoned samples, epochs and learning rate of the published protocol.
SAMPLES, EPOCHS, LR = 5, 5, 0.01
#: Rows per step, and clean rows at most.
BATCH, ROWS = 64, 1000
#: At or below this share a trigger counts as dead; above it, at most this much more than the control.
LOW, MARGIN = 0.1, 0.05
#: References that the control is made of, and other classes where there are none.
CONTROLS = 8
#: A trigger that comes back to more rows than this, and to more than in any control, is back however controls differ.
CEILING = 0.5
#: How often one more control of the same kind may lie above the bound that controls give.
ABOVE = 0.05
#: Retuning that teaches a smaller share of its own poisoned samples shows little.
LEARNED = 0.5


@dataclass(frozen=True)
class Aim:
    """What a backdoor is thought to do: rows of `source` (all other classes, where None) become `target`."""

    target: int
    source: int | None = None

    def rows(self, y: Tensor) -> Tensor:
        """The int64 rows that it is meant to change; all other classes' where the source has none."""
        mine = y == self.source if self.source is not None else y != self.target
        return (mine if bool(mine.any()) else y != self.target).nonzero().flatten()


@dataclass(frozen=True)
class Probe:
    """A trigger and held-out clean rows that carry it."""

    name: str
    trigger: Trigger
    stamped: Batch

    @classmethod
    def on(cls, name: str, trigger: Trigger, held_out: Data, aim: Aim, seed: int = 0) -> Probe:
        rows = aim.rows(held_out.y)
        if len(rows) == 0:
            raise InputError(f"no held-out clean rows of another class than {aim.target}")
        picked = held_out[rows]
        carrying = picked.stamp(torch.arange(len(rows)), trigger, label=None, seed=seed_of("probe", name, seed))
        return cls(name, trigger, whole(carrying.x))

    def success(self, model: Model, target: int) -> float:
        """Share of the stamped rows that a model reads as the target."""
        return float((model.logits(self.stamped).argmax(1) == target).float().mean())


@dataclass(frozen=True)
class Trial:
    """One probe on one repaired model: shares of stamped held-out rows that are read as the target.

    Attributes:
        suspect: before the repair. repaired: after it. control: the largest share among the controls.
        retuned: after retuning; None where it was not tried.
        retuned_control: what retuned controls allow (`bound`); None likewise.
        learned: share of its own poisoned samples that the retuned model reads as the target; None likewise.
        kind: what the controls are: "references", or "none" and "other classes" where there are no references.
    """

    probe: str
    suspect: float
    repaired: float
    control: float
    kind: str
    retuned: float | None = None
    retuned_control: float | None = None
    learned: float | None = None

    @property
    def dead(self) -> bool:
        """The trigger no longer works."""
        return self.repaired <= limit(self.control)

    @property
    def survived(self) -> bool | None:
        """It does not come back; None where that was not tried."""
        if self.retuned is None or self.retuned_control is None:
            return None
        return self.retuned <= limit(self.retuned_control)

    @property
    def tested(self) -> bool:
        """Retuning taught the model most of its own samples; what did not come back otherwise says little."""
        return self.learned is not None and self.learned >= LEARNED


def bound(shares: Sequence[float]) -> float:
    """What controls allow: their largest share, or the bound that one more of them exceeds 5 % of the time.

    A repaired model is one more draw, so a perfect repair exceeds the largest of n controls once in n + 1 times. The
    bound is that of a normal sample (mean + t s sqrt(1 + 1/n)) and counts only below CEILING.
    """
    top, n = max(shares), len(shares)
    if n < 3:
        return top
    values = torch.tensor(shares, dtype=torch.float64)
    reach = float(stats.t.ppf(1 - ABOVE, n - 1)) * float(values.std()) * math.sqrt(1 + 1 / n)
    return max(top, min(CEILING, float(values.mean()) + reach))


def limit(control: float) -> float:
    """The largest success rate that is no sign of a backdoor, given the control's."""
    return max(LOW, control + MARGIN)


def retuned(model: Model, clean: Data, trigger: Trigger, aim: Aim, *, seed: int = 0) -> tuple[Model, float]:
    """A copy after the attack, EPOCHS of SGD on up to ROWS clean rows and SAMPLES poisoned ones, and how many of the
    poisoned samples it learned, as a share."""
    attacked = model.clone()
    rows = clean.sample(ROWS, "retuning", seed, balanced=True)
    pool = aim.rows(rows.y)
    few = pool[torch.randperm(len(pool), generator=generator("retuning samples", seed))[:SAMPLES]]
    picked = rows[few]
    poison = picked.stamp(torch.arange(len(few)), trigger, label=None, seed=seed_of("retuning", seed))
    together = Data(
        concat([whole(rows.x), whole(poison.x)]), torch.cat([rows.y, torch.full_like(picked.y, aim.target)])
    )
    finetune(attacked, together, epochs=EPOCHS, lr=LR, batch=BATCH, seed=seed)
    return attacked, float((attacked.logits(whole(poison.x)).argmax(1) == aim.target).float().mean())


class Reactivation:
    """The test against fixed probes; what does not depend on the repaired model is computed once.

    Controls. With reference models: what the same samples do to models that never had the backdoor. Without: what they
    do to the repaired model itself when they are labelled with another class; if the suspected class is learned far
    faster than the others, a dormant link is left.

    Args:
        clean: rows to retune with, which are not among the probes' rows.
        held_out: rows for the probes towards other classes.
    """

    def __init__(
        self,
        suspect: Model,
        probes: Sequence[Probe],
        aim: Aim,
        clean: Data,
        held_out: Data,
        references: Sequence[Model] = (),
        *,
        seed: int = 0,
    ) -> None:
        self.suspect, self.probes, self.aim, self.clean, self.held_out = suspect, probes, aim, clean, held_out
        self.references, self.seed = list(references)[:CONTROLS], seed
        self.base = _base(suspect, held_out, aim)
        self._before: dict[str, float] = {}
        self._control: dict[str, float] = {}
        self._retuned_control: dict[str, float] = {}

    @property
    def kind(self) -> str:
        return "references" if self.references else "other classes"

    def trials(self, model: Model) -> tuple[Trial, ...]:
        """How a repaired model answers to every probe, without retuning."""
        return tuple(self._trial(model, probe) for probe in self.probes)

    def retune(self, model: Model, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """The same trials, each after retuning with its own trigger. Stops at the first that comes back."""
        out: list[Trial] = []
        for probe, trial in zip(self.probes, trials):
            if out and out[-1].survived is False:
                out.append(trial)
                continue
            after, learned = retuned(model, self.clean, probe.trigger, self.aim, seed=self.seed)
            share, control = probe.success(after, self.aim.target), round(self._after(model, probe), 4)
            out.append(replace(trial, retuned=share, retuned_control=control, learned=learned))
        return tuple(out)

    def _trial(self, model: Model, probe: Probe) -> Trial:
        target = self.aim.target
        if probe.name not in self._before:
            self._before[probe.name] = probe.success(self.suspect, target)
            shares = [probe.success(m, target) for m in self.references]
            self._control[probe.name] = max([self.base, *shares])
        return Trial(
            probe.name,
            self._before[probe.name],
            probe.success(model, target),
            self._control[probe.name],
            "references" if self.references else "none",
        )

    def _after(self, model: Model, probe: Probe) -> float:
        """What the same retuning of controls allows."""
        if not self.references:
            return bound([self._elsewhere(model, probe, k) for k in self._others(model.classes)])
        if probe.name not in self._retuned_control:
            tuned = [retuned(m, self.clean, probe.trigger, self.aim, seed=self.seed)[0] for m in self.references]
            self._retuned_control[probe.name] = bound([probe.success(m, self.aim.target) for m in tuned])
        return self._retuned_control[probe.name]

    def _others(self, classes: int) -> list[int]:
        order = torch.randperm(classes, generator=generator("other classes", self.seed)).tolist()
        return [k for k in order if k not in (self.aim.target, self.aim.source)][:CONTROLS] or [1 - self.aim.target]

    def _elsewhere(self, model: Model, probe: Probe, target: int) -> float:
        aim = Aim(target)
        tuned, _ = retuned(model, self.clean, probe.trigger, aim, seed=self.seed)
        return Probe.on(probe.name, probe.trigger, self.held_out, aim, self.seed).success(tuned, target)


def _base(model: Model, held_out: Data, aim: Aim) -> float:
    """Share of rows without any trigger that are read as the target."""
    rows = held_out[aim.rows(held_out.y)]
    return float((model.logits(rows.x).argmax(1) == aim.target).float().mean())


def search_triggers(model: Model, clean: Data, aim: Aim, *, count: int = 1, seed: int = 0) -> tuple[Trigger, ...]:
    """Up to `count` small triggers for the aim, from different random starts; only those that reach 90 % of 20 rows."""
    rows = aim.rows(clean.y)
    if len(rows) == 0:
        raise InputError(f"no clean rows of another class than {aim.target}")
    rng = generator("search triggers", seed)
    picked = clean[rows[torch.randperm(len(rows), generator=rng)[:80]]]
    starts = (torch.arange(20)[None] + 20 * torch.arange(count)[:, None]) % len(picked)
    rules = Quick(100, 0.5 if model.modality.discrete else 0.25, (0.5, 0.9), 1.0, 1.2, 1.35, 0.9)
    numbers = RowRng(seed_of("search triggers", seed), torch.arange(count))
    with frozen(model.module):
        _, found, _ = search(
            model, model.embed(picked.x), starts, torch.full((count,), aim.target), rules, numbers, keep=count
        )
    return tuple(found[t] for t in sorted(found))


def shift_trigger(model: Model, clean: Data, aim: Aim, *, seed: int = 0) -> Trigger:
    """One shift of all samples together that reaches the target on 90 % of 64 rows, by normalised gradient steps: it
    follows triggers for which no small patch exists. Raises NotApplicable for samples that one pattern cannot be
    added to, and where no shift of half the samples' spread reaches the target."""
    if (adding := model.modality.shift()) is None:
        raise NotApplicable(f"no pattern can be added to {model.modality.plural}")
    rows = aim.rows(clean.y)
    x = whole(clean[rows[torch.randperm(len(rows), generator=generator("shift", seed))[:64]]].x).to(model.device)
    wanted = torch.full((len(x),), aim.target, device=x.device)
    step = 0.5 * float((x - x.mean(0)).flatten(1).norm(dim=1).mean()) / 60
    delta = torch.zeros_like(x[0])
    with frozen(model.module):
        for _ in range(60):
            delta.requires_grad_()
            logits = model.logits_at(model.encode(model.modality.project(x + delta)))
            (slope,) = torch.autograd.grad(F.cross_entropy(logits, wanted), delta)
            delta = delta.detach()
            if float((logits.detach().argmax(1) == wanted).float().mean()) >= 0.9:
                return adding(delta.cpu())
            delta = delta - step * slope / slope.norm().clamp_min(1e-12)
    raise NotApplicable(f"no shift of half the samples' spread reaches class {aim.target}")
