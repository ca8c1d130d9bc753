"""Universal perturbation cost: the L2 norm of a common shift that sends all samples to one class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, Work, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, seed_of

from ._inversion import fewer, frozen, of_all, searched, told


@method(
    "universal-perturbation",
    paper="after Moosavi-Dezfooli et al., CVPR 2017 (universal adversarial perturbations), arXiv:1610.08401",
    needs=("gradients", "clean:100"),
    version=2,
)
class UniversalPerturbation(ModelDetector):
    """One additive perturbation per class by normalised gradient steps; per_class is -log of its L2 norm.

    A backdoor is a short cut to its target for all samples together, whatever its trigger looks like: this sees
    blended and warped triggers, for which no small mask exists. In token modalities the perturbation is one vector
    added to the embedding of every real position. The score is the gap of the smallest log norm to the median class;
    no rule of its own flags anything.

    Deviations from the paper: a targeted perturbation per class, grown by gradient steps on all samples at once, not
    sample by sample, in L2.
    """

    rows: int = 32
    """Samples used, over all classes."""
    budget: int = 512
    """Samples over all targets: with many classes each gets fewer, but at least 8."""
    steps: int = 45
    """Normalised gradient steps."""
    reach: float = 1.0
    """Largest norm, as a fraction of the samples' root mean square distance from their mean."""
    threshold: float = 0.9
    """Fraction of the samples that must reach the class."""
    precision: Literal["float32", "fast"] = "fast"
    """Precision of the forward and backward passes."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        model = model.at_precision(self.precision)
        picked = clean.sample(
            fewer(self.rows, self.budget, model.classes), "universal-perturbation", seed, balanced=True
        )
        inputs = model.embed(picked.x)
        at = searched(model.classes)
        rng = RowRng(seed_of(self.name, seed), at)

        def norms_of(part: Tensor) -> Tensor:
            return self._path(model, inputs, at[part], rng.at(part))

        with frozen(model.module):
            norms = torch.cat(in_parts(model, len(at), norms_of, each=len(picked), gradients=True))
        logs = norms.clamp_min(1e-6).log()
        return Finding(
            score=float(logs.median() - logs.min()) if model.classes > 2 else float(logs.max() - logs.min()),
            target=int(at[int(logs.argmin())]),
            per_class=of_all(-logs, at, model.classes),
            evidence={**told(at, model.classes), "norms": [round(v, 4) for v in norms.tolist()]},
        )

    def work(self, model: Model, rows: int) -> Work:
        n = min(rows, fewer(self.rows, self.budget, model.classes))
        return Work(0, len(searched(model.classes)) * n * (self.steps + 1))

    def _path(self, model: Model, inputs: Encoded, classes: Tensor, rng: RowRng) -> Tensor:
        """(len(classes),) norms."""
        values, n, count = inputs.values.float(), len(inputs.values), len(classes)
        shape = values.shape[1:] if inputs.tokens is None else (1, values.shape[-1])
        spread = (values - values.mean(0)).flatten(1).norm(dim=1).square().mean().sqrt()
        if inputs.tokens is not None:
            spread = (values - values.mean((0, 1))).norm(dim=-1).square().mean().sqrt()
        step = self.reach * spread / self.steps
        wanted = classes.to(values.device).repeat_interleave(n)
        delta = (1e-4 * rng.normal(*shape)).to(values.device)
        last_share, last_norm = torch.zeros(count), torch.zeros(count)
        norm_at, best = torch.full((count,), torch.inf), torch.zeros(count)
        view = [count] + [1] * len(shape)
        for _ in range(self.steps + 1):
            slope, hits = torch.zeros_like(delta), []
            for some in torch.arange(count * n, device=values.device).split(model.gradient_chunk):
                delta.requires_grad_()
                e = inputs.at(some % n)
                moved = model.modality.project(e.values.float() + delta[some // n])
                logits = model.logits_at(Encoded(moved, e.mask, e.tokens))
                slope += torch.autograd.grad(F.cross_entropy(logits, wanted[some], reduction="sum"), delta)[0]
                hits.append(logits.detach().argmax(1) == wanted[some])
            with torch.no_grad():
                share = torch.cat(hits).view(count, n).float().mean(1).cpu()
                norm = delta.flatten(1).norm(dim=1).cpu()
                new = (share >= self.threshold) & norm_at.isinf()
                at = ((self.threshold - last_share) / (share - last_share).clamp_min(1e-6)).clamp(0, 1)
                norm_at = torch.where(new, last_norm + at * (norm - last_norm), norm_at)
                last_share, last_norm, best = share, norm, torch.maximum(best, share)
                if bool(norm_at.isfinite().all()):
                    break
                delta = delta - step * slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12).view(view)
        return torch.where(norm_at.isfinite(), norm_at, last_norm * self.threshold / best.clamp_min(0.5 / n))
