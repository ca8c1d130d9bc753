"""DBS: trigger tokens searched as mixtures over the vocabulary, made one-hot by a temperature that may roll back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data, concat
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, seed_of
from torchbands.core.trigger import Trigger
from torchbands.modalities.tokens import TokenMixture

from ._inversion import frozen

#: The smallest loss that is told from none.
LEAST = 1e-12


@method("dbs", paper="Shen et al., ICML 2022, arXiv:2202.05749", needs=("gradients", "clean:200"), version=2)
class DBS(ModelDetector):
    """Dynamic bound scaling: inverts a trigger per target as softmax-relaxed tokens with an annealed temperature.

    Every `every` steps the temperature is halved where the loss is under its bound, and doubled, with noise on P, where
    it is not; a trigger that is nearly one-hot under the bound is kept and halves the bound; `rollbacks` failures in a
    row double it. per_class is -log of the loss of the hardened trigger, the score their largest. Flagged: a kept
    trigger's loss is at most `threshold`.

    Needs: gradients, a few clean labelled samples; a model of tokens (text, machine code).

    Deviations from the paper: the hinge that keeps a trigger from moving a benign model too is left out, for a detector
    is given one model; words that are strong for a class anyway then reach it as well, so that the published rule flags
    clean models of few classes, and the score means something only beside those of clean models of one recipe. All
    targets are searched together. The rows are those of all other classes, not of one victim class at a time, and the
    insertion is where the modality puts it. A class whose mixture never became one-hot under the bound is scored by
    the likeliest tokens of its best step.

    Cost: `steps` forward and backward passes of `rows` samples per class.
    """

    rows: int = 32
    """Clean samples of other classes on which each target's trigger is optimised (paper: 20)."""
    length: int = 10
    """Tokens (or NOPs in machine code) to insert; 0: the modality's own number."""
    steps: int = 200
    """Optimizer steps for every trigger."""
    lr: float = 0.5
    """Learning rate of Adam, halved every 50 steps."""
    temperature: float = 2.0
    """Initial and largest temperature of the softmax."""
    factor: float = 2.0
    """Factor by which the temperature falls and rises."""
    every: int = 5
    """Steps between changes of the temperature."""
    bound: float = 0.1
    """Initial bound on the loss."""
    noise: float = 10.0
    """Largest noise added to the token weights, divided by the temperature, in a rollback."""
    rollbacks: int = 5
    """Rollbacks after which the bound is doubled."""
    one_hot: float = 1e-3
    """How far the largest token weight of every position may be from 1 for a trigger to be accepted."""
    threshold: float = 1e-3
    """Models whose smallest loss is at most this are flagged."""
    classes_at_once: int = 16
    """Number of target classes searched together."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        if min(self.rows, self.steps, self.every, self.classes_at_once) < 1 or self.length < 0:
            raise InputError(
                f"{self.name}: rows, steps, every and classes_at_once are at least 1 and length at least 0",
                hint=f"got rows={self.rows}, steps={self.steps}, every={self.every}, length={self.length}",
            )
        if not model.modality.discrete:
            raise NotApplicable(f"{self.name} searches tokens, and {model.modality.name} has none")
        searches = []
        with frozen(model.module):
            for group in torch.arange(model.classes).split(self.classes_at_once):
                searches.append(_Search(self, model, clean, group, seed).run())
        loss, kept, hits = (torch.cat([getattr(s, name) for s in searches]) for name in ("hard", "kept", "hits"))
        triggers = [trigger for s in searches for trigger in s.triggers()]
        target = int(loss.argmin())
        per_class = -loss.log().float()
        return Finding(
            score=float(per_class.max()),
            flagged=bool(kept.min() <= self.threshold),
            target=target,
            trigger=triggers[target],
            per_class=per_class,
            evidence={
                "loss": [float(f"{v:.3g}") for v in loss.tolist()],
                "success": [round(v, 4) for v in hits.tolist()],
                "one_hot": kept.isfinite().tolist(),
                "words": [inserted(trigger) for trigger in triggers],
            },
        )


def inserted(trigger: Trigger) -> list[str]:
    """What a token trigger inserts, to be read: its words, or its bytes in hexadecimal."""
    words = getattr(trigger, "words", None)
    return list(words) if words is not None else [str(getattr(trigger, "payload", trigger.label()))]


class _Search:
    """The triggers of some classes side by side.

    Attributes:
        kept: (G,) loss of the last trigger that was one-hot under its bound; inf where there was none.
        hard: (G,) float64 loss of the hardened triggers; hits: (G,) share of the rows that they send to the target.
    """

    def __init__(self, settings: DBS, model: Model, clean: Data, group: Tensor, seed: int) -> None:
        self.settings, self.model, self.rng = settings, model, RowRng(seed_of("dbs", seed), group)
        modality = model.modality.but(inserted=settings.length) if settings.length else model.modality
        made = modality.perturbation(model, self.rng.at(torch.arange(len(group))))
        if not isinstance(made, TokenMixture):
            raise NotApplicable(f"{settings.name} searches token mixtures, which {modality.name} does not have")
        self.mixture = made
        with torch.no_grad():
            self.mixture.logits.zero_()
        others = [clean[clean.y != k].sample(settings.rows, "dbs", seed, balanced=True) for k in group.tolist()]
        if empty := [k for k, rows in zip(group.tolist(), others, strict=True) if len(rows) == 0]:
            raise InputError(f"{settings.name} needs clean samples of other classes than {empty[0]}, got none")
        count = torch.tensor([len(rows) for rows in others])
        self.which = torch.arange(len(group)).repeat_interleave(count).to(model.device)
        self.wanted = group.repeat_interleave(count).to(model.device)
        self.count = count.to(model.device)
        self.inputs: Encoded = model.embed(concat([rows.x for rows in others]))
        self.kept = torch.full((len(group),), torch.inf, device=model.device)
        self.hard, self.hits = self.kept.double(), self.kept.clone()

    def run(self) -> _Search:
        s, mixture, device = self.settings, self.mixture, self.model.device
        optimizer = torch.optim.Adam(mixture.parameters(), lr=s.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.5)
        temperature = torch.full_like(self.kept, s.temperature)
        bound = torch.full_like(self.kept, s.bound)
        loss, lowest = self.kept.clone(), self.kept.clone()
        begun = torch.zeros_like(self.kept, dtype=torch.bool)
        failures = torch.zeros_like(self.kept, dtype=torch.int64)
        best = mixture.logits.detach().clone()
        for step in range(s.steps):
            tired = failures >= s.rollbacks
            bound = torch.where(tired, torch.minimum(2 * bound, self.kept - 1e-3), bound)
            failures = torch.where(tired, 0, failures)
            mixture.noise = None
            if step % s.every == 0:
                back = begun & (loss >= bound)
                temperature = torch.where(begun & ~back, temperature / s.factor, temperature)
                temperature = torch.where(back, (temperature * s.factor).clamp_max(s.temperature), temperature)
                failures += back.long()
                drawn = s.noise * self.rng.uniform(*mixture.logits.shape[1:]).to(device)
                mixture.noise = torch.where(back[:, None, None], drawn, 0.0)
            mixture.temperature = temperature
            optimizer.zero_grad(set_to_none=True)
            each, _ = self._loss(slopes=True)
            with torch.no_grad():
                loss = each.float()
                one_hot = (1 - mixture.mixture().amax(-1)).sum(-1) < s.one_hot
                good = one_hot & (loss <= bound)
                near = ~self.kept.isfinite() & (loss < lowest)
                lowest = torch.where(near, loss, lowest)
                best = torch.where((good | near)[:, None, None], mixture.logits.detach(), best)
                self.kept = torch.where(good, loss, self.kept)
                bound = torch.where(good, loss / 2, bound)
                failures = torch.where(good, 0, failures)
                begun |= loss <= bound
            optimizer.step()
            schedule.step()
        self._finish(best)
        return self

    def _loss(self, *, slopes: bool = False) -> tuple[Tensor, Tensor]:
        """(G,) mean cross-entropies, exact far below float32's resolution of 1, and (G,) success shares; with `slopes`
        the gradients of their sum are left in the mixture."""
        total, reached = torch.zeros_like(self.hard), torch.zeros_like(self.hard)
        per = self.model.gradient_chunk if slopes else self.model.chunk
        for some in torch.arange(len(self.which), device=self.which.device).split(per):
            which, wanted = self.which[some], self.wanted[some]
            logits = self.model.logits_at(self.mixture(self.inputs.at(some), which)).double()
            own = logits.gather(1, wanted[:, None]).squeeze(1)
            others = logits.scatter(1, wanted[:, None], -torch.inf).logsumexp(1)
            loss = torch.zeros_like(total).index_add(0, which, F.softplus(others - own)) / self.count
            if slopes:
                loss.sum().backward()
            total += loss.detach()
            reached.index_add_(0, which, (own > others).double())
        return total, reached / self.count

    @torch.no_grad()
    def _finish(self, best: Tensor) -> None:
        mixture = self.mixture
        tokens = best.argmax(-1, keepdim=True)
        mixture.logits.copy_(torch.full_like(best, -1e4).scatter(-1, tokens, 0.0))
        mixture.noise, mixture.temperature = None, torch.ones_like(self.kept)
        loss, hits = self._loss()
        self.hard, self.hits = loss.clamp_min(LEAST).cpu(), hits.float().cpu()
        self.kept = self.kept.cpu()

    def triggers(self) -> list[Trigger]:
        """One of each class."""
        return [self.mixture.harden(g) for g in range(len(self.count))]
