"""I-BAU: unlearns the worst universal perturbation, with implicit gradients through the inner problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchbands.core.data import Data, whole
from torchbands.core.defense import Repair, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator

#: An embedded batch and its (N,) labels.
Rows = tuple[Encoded, Tensor]
#: Of the paper's images, which its ball and its inner step are for.
NUMBERS = 3 * 32 * 32


@method(
    "i-bau", paper="Zeng et al., ICLR 2022, arXiv:2110.03735", needs=("gradients", "weights", "clean:5000"), version=3
)
class IBAU(Repair):
    """Minimax over the weights and one universal perturbation of the continuous input (pixels, embeddings, fields).

    Inner: one pass over the clean rows of gradient ascent on the perturbation, away from the model's own answers, with
    an L2 penalty and an L2 ball. Outer: Adam on the weights with the implicit hypergradient, by K steps of the
    fixed-point (Neumann) iteration, whose inner problem is that of the round's first batch.

    As in the authors' code the search is one pass with large steps, only 1 % of an outer batch is perturbed (more costs
    accuracy), and perturbed values are not brought back to the modality's range: a clamped perturbation has no gradient
    where it leaves the range, and the weights are then ruined.

    Deviations from the paper: the ball is given by the root mean square, which is that of an L2 norm of 10 on the 3,072
    numbers of the paper's images, so that smaller samples are not drowned, and the inner step is likewise by the mean
    square: with fewer numbers each bends the loss more, the series grows without bound and the weights are ruined
    (8x8 digits: accuracy .96 to between .6 and .87); batches are drawn anew in every round; padding is never perturbed,
    and for images the perturbation lives in raw [0, 1] pixels; the network stays in eval mode, as in the authors' code.

    """

    contract_settings: ClassVar[dict[str, Any]] = {"portion": 0.2, "lr": 0.01}

    rounds: int = 5
    """Outer rounds: a search for a perturbation, then one pass over the clean rows."""
    search_lr: float = 10.0
    """Step size of the search (plain gradient ascent, one step per batch)."""
    radius: float = 0.18
    """Bound on the root mean square of the perturbation, in units of the model's input."""
    inner_lr: float = 0.1
    """Step size of the fixed-point iteration, for samples of 3,072 numbers."""
    penalty: float = 1e-3
    """Weight of the perturbation's squared L2 norm."""
    neumann: int = 5
    """Fixed-point iterations (K) from zero, that is, terms of the Neumann series."""
    lr: float = 1e-3
    """Learning rate of Adam for the weights."""
    portion: float = 0.01
    """Fraction of each outer batch that carries the perturbation (at least one row)."""
    batch: int = 100
    """Batch size of the outer problem."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.neumann, self.batch) < 1:
            given = f"{self.rounds}, {self.neumann} and {self.batch}"
            raise InputError(f"{self.name}: rounds, neumann and batch are at least 1, got {given}")

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        repaired = model.clone().at_precision("float32")
        # second derivatives of channels_last convolutions take twice the time of contiguous ones on a CPU
        repaired.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        rng, device = generator("i-bau", seed), repaired.device
        e, y = repaired.embed(whole(clean.x)), clean.y.to(device)
        weights: list[Tensor] = [p for p in repaired.module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.lr)
        with sdpa_kernel([SDPBackend.MATH]):  # the fused attention kernels have no second derivative
            for _ in range(self.rounds):
                batches = torch.randperm(len(y), generator=rng).to(device).tensor_split(math.ceil(len(y) / self.batch))
                delta = self._search(repaired, e, batches)
                first = (e.at(batches[0]), y[batches[0]])
                for rows in batches:
                    self._unlearn(repaired, weights, optimizer, (e.at(rows), y[rows]), first, delta)
        return repaired.at_precision(model.precision)

    def _inner(self, model: Model, e: Encoded, y: Tensor, delta: Tensor) -> Tensor:
        return self.penalty * delta.square().sum() - F.cross_entropy(perturbed(model, e, delta), y)

    def _search(self, model: Model, e: Encoded, batches: Sequence[Tensor]) -> Tensor:
        delta = torch.zeros_like(e.values[0])
        for rows in batches:
            batch = e.at(rows)
            with torch.no_grad():
                answers = model.logits_at(batch).argmax(1)
            delta.requires_grad_()
            (slope,) = torch.autograd.grad(self._inner(model, batch, answers, delta), delta)
            delta = (delta - self.search_lr * slope).detach()
        return delta * min(1.0, self.radius / max(float(delta.square().mean().sqrt()), 1e-12))

    def _unlearn(
        self,
        model: Model,
        weights: list[Tensor],
        optimizer: torch.optim.Optimizer,
        batch: Rows,
        first: Rows,
        delta: Tensor,
    ) -> None:
        """One step on a batch's loss, whose perturbation depends on the weights by the inner problem of `first`."""
        (e, y), (inner_e, inner_y) = batch, first
        delta = delta.detach().requires_grad_()
        some = max(1, round(self.portion * len(y)))
        logits = perturbed(model, e, delta, some)
        direct = torch.autograd.grad(F.cross_entropy(logits, y), [delta, *weights], allow_unused=True)
        outer = torch.zeros_like(delta) if direct[0] is None else direct[0]
        (slope,) = torch.autograd.grad(self._inner(model, inner_e, inner_y, delta), delta, create_graph=True)
        size = self.inner_lr * delta.numel() / NUMBERS
        after = delta - size * slope  # one step of the search, as a function of perturbation and weights
        adjoint = term = outer
        for _ in range(self.neumann - 1):
            (term,) = torch.autograd.grad(after, delta, term, retain_graph=True)
            adjoint = adjoint + term
        implicit = torch.autograd.grad(after, weights, adjoint, allow_unused=True)
        for weight, a, b in zip(weights, direct[1:], implicit):
            parts = [g for g in (a, b) if g is not None]
            weight.grad = torch.stack(parts).sum(0) if parts else None
        optimizer.step()


def perturbed(model: Model, e: Encoded, delta: Tensor, first: int | None = None) -> Tensor:
    """Logits with delta added to the first rows (all by default; real tokens only)."""
    shift = delta.expand_as(e.values) if e.mask is None else delta * e.mask[..., None]
    values = e.values + shift
    if first is not None:
        values = torch.cat([values[:first], e.values[first:]])
    return model.logits_at(Encoded(values, e.mask, e.tokens))
