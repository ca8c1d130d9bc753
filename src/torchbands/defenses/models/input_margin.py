"""Input margin: how far the logit of each class can be raised above all others from noise, in a few steps."""

from __future__ import annotations

from typing import Literal

import torch

from torchbands.core.budget import in_parts
from torchbands.core.data import Data, concat
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator

from ._inversion import fewer, frozen, of_all, searched, told
from .mm_bd import margins_of


@method("input-margin", paper="after Wang et al., S&P 2024 (MM-BD), arXiv:2205.06900", needs=("gradients",), version=2)
class InputMargin(ModelDetector):
    """MM-BD's largest margin per class in a fixed, small number of Adam steps; per_class is the log margin.

    The score is the gap of the largest log margin to the median class. It is to be compared with the same class in
    reference models (`torchbands.scanner`); `mm-bd` is the published detector with its own rule. Needs no data.

    Deviations from the paper: Adam in a fixed number of steps from few starting points, and no test of its own.
    """

    inputs: int = 8
    """Random starting points per class."""
    budget: int = 160
    """Starting points over all classes: with many classes each gets fewer, but at least 4."""
    steps: int = 40
    """Steps of Adam."""
    lr: float = 0.1
    """Learning rate of Adam, in units of the input."""
    precision: Literal["float32", "fast"] = "float32"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model)
        model = model.at_precision(self.precision)
        n = fewer(self.inputs, self.budget, model.classes, least=4)

        at = searched(model.classes)

        def margins_at(part: torch.Tensor) -> torch.Tensor:
            return self._ascend(model, at[part], n, seed)

        with frozen(model.module):
            margins = torch.cat(in_parts(model, len(at), margins_at, each=n, gradients=True))
        logs = margins.clamp_min(1e-3).log()
        return Finding(
            score=float(logs.max() - logs.median()) if model.classes > 2 else float(logs.max() - logs.min()),
            target=int(at[int(logs.argmax())]),
            per_class=of_all(logs, at, model.classes),
            evidence={**told(at, model.classes), "margins": [round(v, 4) for v in margins.tolist()]},
        )

    def work(self, model: Model, rows: int) -> Work:
        return Work(
            0, len(searched(model.classes)) * fewer(self.inputs, self.budget, model.classes, least=4) * self.steps
        )

    def _ascend(self, model: Model, classes: torch.Tensor, n: int, seed: int) -> torch.Tensor:
        """(len(classes),) largest margins."""
        noise = [model.modality.random(n, generator(self.name, seed, k)) for k in classes.tolist()]
        start = model.embed(concat(noise))
        target = classes.repeat_interleave(n).to(model.device)
        x = start.values.detach().float().clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.lr)
        best = torch.full((len(classes),), -torch.inf, device=model.device)
        for _ in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            seen = []
            for some in torch.arange(len(x), device=x.device).split(model.gradient_chunk):
                e = start.at(some)
                margin = margins_of(model.logits_at(Encoded(x[some], e.mask, e.tokens)), target[some])
                (-margin.sum()).backward()
                seen.append(margin.detach())
            best = torch.maximum(best, torch.cat(seen).view(len(classes), -1).amax(1))
            optimizer.step()
            with torch.no_grad():
                x.copy_(model.modality.project(x))
        return best.cpu()
