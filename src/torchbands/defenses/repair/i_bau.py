"""I-BAU: unlearn the worst universal perturbation, with the gradient through the inner search taken implicitly."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchbands.core.data import Data, whole
from torchbands.core.defense import Repair, require
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator


@method("i-bau", paper="Zeng et al., ICLR 2022, arXiv:2110.03735", needs=("gradients", "weights", "clean:5000"))
class IBAU(Repair):
    """Minimax over weights and one universal perturbation of the model's continuous space (pixels, embeddings, fields).

    Inner: one pass over the clean rows of gradient ascent on the perturbation, with an L2 penalty and an L2 ball.
    Outer: Adam on the weights with the implicit hypergradient, by K steps of the fixed-point (Neumann) iteration.

    Deviations from the paper: as in public code, the search is one pass with large steps and only 1 % of an
    outer batch is perturbed (more costs accuracy); perturbed values are projected back to the modality's range, padding
    is never perturbed, and for images the perturbation lives in raw [0, 1] pixels; the network stays in eval mode.
    """

    rounds: int = 5
    """Searches for a perturbation, each followed by a pass over the clean rows."""
    search_lr: float = 10.0
    """Step size of the search, plain gradient ascent with a step per batch."""
    radius: float = 10.0
    """Largest L2 norm of the perturbation, in the units of the model's input."""
    inner_lr: float = 0.1
    """Step size of the inner problem in the fixed-point iteration."""
    penalty: float = 1e-3
    """On the squared L2 norm of the perturbation."""
    neumann: int = 5
    """Steps of the fixed-point iteration (K)."""
    lr: float = 1e-3
    """Of Adam on the weights."""
    portion: float = 0.01
    """Share of each outer batch that carries the perturbation (at least one row)."""
    batch: int = 100
    """Rows per outer step."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired = model.clone()
        repaired.precision = "float32"
        rng, device = generator("i-bau", seed), repaired.device
        e, y = repaired.embed(whole(clean.x)), clean.y.to(device)
        weights: list[Tensor] = [p for p in repaired.module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.lr)
        with sdpa_kernel([SDPBackend.MATH]):  # the fused attention kernels have no second derivative
            for _ in range(self.rounds):
                batches = torch.randperm(len(y), generator=rng).to(device).tensor_split(math.ceil(len(y) / self.batch))
                delta = self._search(repaired, e, y, batches)
                for rows in batches:
                    self._unlearn(repaired, weights, optimizer, e.at(rows), y[rows], delta)
        repaired.precision = model.precision
        return repaired

    def _inner(self, model: Model, e: Encoded, y: Tensor, delta: Tensor) -> Tensor:
        return self.penalty * delta.square().sum() - F.cross_entropy(perturbed(model, e, delta), y)

    def _search(self, model: Model, e: Encoded, y: Tensor, batches: tuple[Tensor, ...]) -> Tensor:
        delta = torch.zeros_like(e.values[0])
        for rows in batches:
            delta.requires_grad_()
            (slope,) = torch.autograd.grad(self._inner(model, e.at(rows), y[rows], delta), delta)
            delta = (delta - self.search_lr * slope).detach()
        return delta * min(1.0, self.radius / max(float(delta.norm()), 1e-12))

    def _unlearn(
        self,
        model: Model,
        weights: list[Tensor],
        optimizer: torch.optim.Optimizer,
        e: Encoded,
        y: Tensor,
        delta: Tensor,
    ) -> None:
        delta = delta.detach().requires_grad_()
        some = max(1, round(self.portion * len(y)))
        logits = perturbed(model, e, delta, some)
        direct = torch.autograd.grad(F.cross_entropy(logits, y), [delta, *weights], allow_unused=True)
        outer = torch.zeros_like(delta) if direct[0] is None else direct[0]
        (slope,) = torch.autograd.grad(self._inner(model, e, y, delta), delta, create_graph=True)
        after = delta - self.inner_lr * slope  # one step of the search, as a function of perturbation and weights
        adjoint = outer
        for _ in range(self.neumann):
            (back,) = torch.autograd.grad(after, delta, adjoint, retain_graph=True)
            adjoint = back + outer
        implicit = torch.autograd.grad(after, weights, adjoint, allow_unused=True)
        for weight, a, b in zip(weights, direct[1:], implicit):
            parts = [g for g in (a, b) if g is not None]
            weight.grad = torch.stack(parts).sum(0) if parts else None
        optimizer.step()


def perturbed(model: Model, e: Encoded, delta: Tensor, first: int | None = None) -> Tensor:
    """Logits with delta added to the first rows (all by default; real tokens only), projected to where samples live."""
    shift = delta.expand_as(e.values) if e.mask is None else delta * e.mask[..., None]
    values = model.modality.project(e.values + shift)
    if first is not None:
        values = torch.cat([values[:first], e.values[first:]])
    return model.logits_at(Encoded(values, e.mask, e.tokens))
