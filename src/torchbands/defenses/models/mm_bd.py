"""MM-BD: a backdoored class can be raised over all others by an unusual margin, found without any data."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator

from ._inversion import frozen


@method("mm-bd", paper="Wang et al., S&P 2024, arXiv:2205.06900", needs=("gradients",))
class MMBD(ModelDetector):
    """Largest achievable margin of each class, and how unlikely the maximum is given those of the other classes.

    For class t, max of f_t - max_{k != t} f_k by gradient ascent from random inputs. A Gamma distribution F is fitted
    to the K - 1 margins that are not the largest; p = 1 - F(r_max)^K. Flagged: p < 0.05; the score is -log10 p.
    With fewer than 4 classes nothing can be fitted: the score is then the largest margin and nothing is flagged.

    Needs: gradients; no data.

    Deviations from the paper: all classes are searched together; inputs are projected after every step; momentum acts,
    whereas the authors' code makes a new optimiser at every step, so that its 0.2 never does; the Gamma's location
    is 0 (the authors fit a free one, which is unstable on nine numbers), and margins not above 0 count as 1e-6. In
    token modalities the ascent is over embeddings, from random tokens.
    """

    inputs: int = 30
    """Random starting points per class."""
    steps: int = 300
    """Maximum number of gradient steps."""
    lr: float = 1e-2
    """Step size of gradient ascent."""
    momentum: float = 0.2
    """Momentum of gradient ascent."""
    tolerance: float = 1e-5
    """A class has converged when its summed margin changes by less than this fraction."""
    alpha: float = 0.05
    """Models with a smaller p-value are flagged."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model)
        rng = generator("mm-bd", seed)

        def ascent(part: Tensor) -> tuple[Tensor, list[int]]:
            starts = [model.embed(model.modality.random(self.inputs, rng)) for _ in part]
            return self._ascend(model, starts, int(part[0]))

        with frozen(model.module):
            found = in_parts(model, model.classes, ascent, each=self.inputs, gradients=True, rng=rng)
        margins = torch.cat([m for m, _ in found]).cpu()
        steps = [n for _, taken in found for n in taken]
        evidence: dict[str, Any] = {"margins": [round(m, 4) for m in margins.tolist()], "steps": steps}
        target, flagged = int(margins.argmax()), None
        if model.classes < 4:
            score = float(margins.max())
            evidence["reason"] = f"{model.classes} classes are too few for an outlier test, which needs at least 4"
        else:
            score = surprise(margins)
            flagged = score > -math.log10(self.alpha)
            evidence["p"] = 10.0**-score
        return Finding(score=score, flagged=flagged, target=target, per_class=margins, evidence=evidence)

    def _ascend(self, model: Model, starts: list[Encoded], first: int) -> tuple[Tensor, list[int]]:
        """(classes,) largest margins of classes first, first + 1, ..., and the steps each took."""
        n, count = self.inputs, len(starts)
        x = torch.cat([e.values for e in starts]).float()
        masks = [e.mask for e in starts if e.mask is not None]
        tokens = [e.tokens for e in starts if e.tokens is not None]
        mask, ids = torch.cat(masks) if masks else None, torch.cat(tokens) if tokens else None
        rows = torch.arange(count * n, device=x.device)
        best = torch.full((count,), -torch.inf, device=x.device)
        last, taken = torch.full((count,), torch.inf, device=x.device), torch.zeros(count, dtype=torch.int64)
        speed, live = torch.zeros_like(x), torch.arange(count, device=x.device)
        for _ in range(self.steps):
            at = rows.view(count, n)[live].flatten()
            seen = []
            for some in at.split(model.gradient_chunk):
                point = x[some].requires_grad_()
                e = Encoded(point, None if mask is None else mask[some], None if ids is None else ids[some])
                margin = margins_of(model.logits_at(e), first + some // n)
                (slope,) = torch.autograd.grad(margin.sum(), point)
                seen.append(margin.detach())
                speed[some] = self.momentum * speed[some] + slope
                x[some] = model.modality.project(x[some] + self.lr * speed[some])
            by_class = torch.cat(seen).view(len(live), n)
            best[live] = by_class.amax(1)
            taken[live.cpu()] += 1
            total = by_class.sum(1)
            moving = (total - last[live]).abs() >= self.tolerance * total.abs()
            last[live] = total
            live = live[moving]
            if len(live) == 0:
                break
        return best, taken.tolist()


def margins_of(logits: Tensor, target: Tensor) -> Tensor:
    """(N,) by how much the logit of each row's target exceeds the largest other one."""
    own = logits.gather(1, target[:, None]).squeeze(1)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return own - others.amax(1)


def surprise(margins: Tensor) -> float:
    """-log10 p of the largest of (K,) margins under a Gamma distribution of the others (at most 300)."""
    values = margins.double().clamp_min(1e-6)
    null = values[torch.arange(len(values)) != values.argmax()]
    if float(null.std()) <= 1e-9 * float(null.mean()):
        return 0.0 if float(values.max()) <= float(null.max()) * (1 + 1e-9) else 300.0
    shape, _, scale = stats.gamma.fit(null.numpy(), floc=0)
    tail = float(stats.gamma.logsf(float(values.max()), shape, scale=scale))
    if tail < -20:  # 1 - (1 - s)^K = K s
        log_p = math.log(len(values)) + tail
    else:
        log_p = math.log(-math.expm1(len(values) * math.log1p(-math.exp(tail)))) if tail < 0 else 0.0
    return min(300.0, max(0.0, -log_p / math.log(10)))
