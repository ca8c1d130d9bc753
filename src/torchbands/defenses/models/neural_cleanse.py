"""Neural Cleanse: a backdoored class is reached from everywhere by an unusually small trigger."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Encoded, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of

from ._inversion import CostSchedule, Rules, frozen


@method("neural-cleanse", paper="Wang et al., S&P 2019", needs=("gradients", "clean:512"), version=2)
class NeuralCleanse(ModelDetector):
    """Searches for the smallest trigger of every class; the score is the anomaly index of the smallest one.

    The index is (median - smallest) / (1.4826 MAD) over the sizes of all classes. Flagged: index > 2. Of each class
    the smallest trigger that reached the success threshold is kept, never the last one; a class that never reached it
    counts as the largest size divided by its success rate. With fewer than 4 classes the index does not exist: the
    score is then -log of the smallest size and nothing is flagged.

    Needs: gradients, clean samples (their labels are not read).

    Deviations from the paper: all classes are searched together (their losses share no parameter, so the answer is
    that of a loop, to rounding). An epoch, after which weights and stopping are decided, is 4 batches of 32 (paper:
    1,000 samples) and there are at most 60 (paper: 1,000 with the same early stop): on Fashion-MNIST victims the
    sizes stay within a few per cent of those at 4 times the work. The MAD is floored at 1 % of the median. In other
    modalities the trigger is what the modality searches: fields of a table, or words as softmax mixtures over tokens,
    for which the rate is that of DBS (Shen et al., ICML 2022).
    """

    rows: int = 512
    """Clean samples used."""
    batch: int = 32
    """Samples per class and step."""
    steps: int = 4
    """Batches per epoch."""
    epochs: int = 60
    """Maximum number of epochs."""
    lr: float = 0.1
    """Learning rate of Adam."""
    token_lr: float = 0.5
    """Learning rate of Adam where triggers are mixtures of tokens."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Momentum coefficients (betas) of Adam."""
    cost: float = 1e-3
    """Initial weight of the trigger's size."""
    factor: float = 2.0
    """The weight grows by this factor, and shrinks by factor ** 1.5."""
    threshold: float = 0.99
    """Attack success rate that a trigger must reach."""
    patience: int = 5
    """Consecutive epochs before the weight is adapted."""
    stop_patience: int = 25
    """Epochs without a smaller trigger after which a class is finished."""
    stop_ratio: float = 0.99
    """A trigger counts as smaller when its size is below this fraction of the best one's."""
    index: float = 2.0
    """Anomaly index from which the model is flagged."""
    classes_at_once: int = 0
    """Number of classes searched together; 0: all. It does not change the result."""
    precision: Literal["float32", "fast"] = "float32"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        if min(self.rows, self.batch, self.steps, self.epochs) < 1 or self.classes_at_once < 0:
            raise InputError(
                f"{self.name}: rows, batch, steps and epochs are at least 1 and classes_at_once at least 0"
            )
        search = _Search(self, model, clean, seed)
        with frozen(model.module):
            for group in torch.arange(model.classes).split(self.classes_at_once or model.classes):
                search.run(group)
        return self._judge(search)

    def _judge(self, search: _Search) -> Finding:
        reached, sizes = search.reached.cpu(), search.sizes().cpu()
        success = [search.success(k) for k in range(len(sizes))]
        share = torch.tensor(success).clamp_min(1 / self.rows)
        sizes = torch.where(reached, sizes, sizes.max() / share)
        logs = sizes.clamp_min(1e-6).log()
        target = int(sizes.argmin())
        index, evidence = anomaly_index(sizes)
        evidence |= {
            "sizes": [round(s, 4) for s in sizes.tolist()],
            "reached": reached.tolist(),
            "epochs": search.epochs,
            "success": [round(share, 4) for share in success],
            "log_gap": round(float(logs.median() - logs.min()), 4),
        }
        flagged: bool | None = None
        if len(sizes) < 4:
            evidence["reason"] = f"{len(sizes)} classes are too few for an outlier test, which needs at least 4"
        elif not reached.any():
            evidence["reason"] = f"no trigger reached a success of {self.threshold}"
        else:
            flagged = index > self.index
        return Finding(
            score=index if len(sizes) >= 4 else -float(logs.min()),
            flagged=flagged,
            target=target,
            trigger=search.trigger.harden(target),
            per_class=-logs,
            evidence=evidence,
        )


def anomaly_index(sizes: Tensor) -> tuple[float, dict[str, Any]]:
    """How far the smallest of (K,) sizes lies under the median, in deviations (1.4826 MAD, at least 1 % of the median).

    One-sided: an unusually large trigger is no sign of a backdoor.
    """
    values = sizes.double()
    median = float(values.quantile(0.5))
    mad = 1.4826 * float((values - median).abs().quantile(0.5))
    gap = median - float(values.min())
    index = gap / max(mad, 0.01 * median, 1e-12) if gap > 0 else 0.0
    return index, {"median": round(median, 4), "deviation": round(mad, 4)}


class _Search:
    """The inversion of all classes: K triggers side by side in one Perturbation."""

    def __init__(self, settings: NeuralCleanse, model: Model, clean: Data, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.model = Model(
            model.module, model.modality, model.classes, precision=settings.precision, passes=model.passes
        )
        self.inputs: Encoded = self.model.embed(clean.sample(settings.rows, "neural-cleanse", seed).x)
        self.trigger: Perturbation = model.modality.perturbation(
            self.model, RowRng(seed_of("neural-cleanse", seed), torch.arange(model.classes))
        )
        self.reached = torch.zeros(model.classes, dtype=torch.bool, device=model.device)
        self.epochs = [0] * model.classes

    def sizes(self) -> Tensor:
        """(K,) sizes of the triggers kept."""
        return self.trigger.size().detach()

    @torch.no_grad()
    def success(self, k: int) -> float:
        """Share of all samples that the trigger kept for class k sends there."""

        def hits(part: Tensor) -> int:
            rows = part.to(self.model.device)
            logits = self.model.logits_at(self.trigger(self.inputs.at(rows), torch.full_like(rows, k)))
            return int((logits.argmax(1) == k).sum())

        return sum(in_parts(self.model, len(self.inputs.values), hits)) / len(self.inputs.values)

    def run(self, group: Tensor) -> None:
        """Search the triggers of some classes and leave the best of each in place."""
        s = self.settings
        rules = Rules(s.cost, s.factor, s.threshold, s.patience, s.stop_patience, s.stop_ratio)
        schedule = CostSchedule(rules, self.model.classes, self.model.device)
        lr = s.token_lr if self.model.modality.discrete else s.lr
        optimizer = torch.optim.Adam(self.trigger.parameters(), lr=lr, betas=s.betas)
        best = {name: p.detach().clone() for name, p in self.trigger.named_parameters()}
        order, self._queue = generator("neural-cleanse batches", self.seed), torch.arange(0)
        active = group.to(self.model.device)
        for _ in range(s.epochs):
            success = self._epoch(active, schedule.cost, optimizer, order)
            searched = torch.zeros_like(schedule.done)
            searched[active] = True
            better = schedule.step(success, self.sizes(), searched)
            for name, p in self.trigger.named_parameters():
                best[name] = torch.where(better.view(-1, *[1] * (p.ndim - 1)), p.detach(), best[name])
            for k in active.tolist():
                self.epochs[k] += 1
            active = active[~schedule.done[active]]
            if len(active) == 0:
                break
        mine = torch.zeros_like(schedule.done)
        mine[group] = True
        kept = schedule.best.isfinite()
        self.reached |= kept
        with torch.no_grad():
            for name, p in self.trigger.named_parameters():
                p.copy_(torch.where((mine & kept).view(-1, *[1] * (p.ndim - 1)), best[name], p))

    def _epoch(self, active: Tensor, cost: Tensor, optimizer: torch.optim.Adam, order: torch.Generator) -> Tensor:
        """`steps` batches; (K,) success rates of the active classes."""
        hits, drawn = torch.zeros_like(cost), 0
        for _ in range(self.settings.steps):
            rows = self._draw(order).to(active.device)
            drawn += len(rows)
            optimizer.zero_grad(set_to_none=True)
            fits = self.model.gradient_chunk
            for part in active.chunk(math.ceil(len(active) * len(rows) / fits)):
                for some in rows.split(fits):  # the samples of one class may not fit
                    which = part.repeat_interleave(len(some))
                    logits = self.model.logits_at(self.trigger(self.inputs.at(some.repeat(len(part))), which))
                    loss = F.cross_entropy(logits, which, reduction="sum") / len(rows)
                    loss.backward()
                    hits.index_add_(0, which, (logits.detach().argmax(1) == which).to(hits))
            penalty = (cost * self.trigger.size())[active].sum()
            penalty.backward()
            optimizer.step()
            self.trigger.constrain()
        return hits / drawn

    def _draw(self, order: torch.Generator) -> Tensor:
        """Rows of the next batch: the samples in shuffled passes that do not end with the epoch."""
        while len(self._queue) < min(self.settings.batch, len(self.inputs.values)):
            self._queue = torch.cat([self._queue, torch.randperm(len(self.inputs.values), generator=order)])
        rows, self._queue = self._queue[: self.settings.batch], self._queue[self.settings.batch :]
        return rows
