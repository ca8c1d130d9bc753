"""BAN: under adversarial neuron noise, a backdoored network collapses to the target class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable
from torchbands.core.layers import Gate
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator

from ._inversion import frozen


@method("ban", paper="Xu et al., NeurIPS 2024, arXiv:2405.19928", needs=("gradients", "units", "clean:500"), version=2)
class BAN(ModelDetector):
    """How strongly adversarial neuron noise drives all samples to one class, on features clean data do not need.

    First a mask m over the features h before the head is learnt: CE(c(m h), y) - CE(c((1 - m) h), y) + lambda log |m|
    is minimised, so that m keeps what clean samples need. Then every unit's weight and bias is multiplied by (1 + n),
    |n| <= eps, by sign-gradient ascent on the clean loss. `per_class` holds the log odds of each class's mean posterior
    over c((1 - m) h_noisy), the score is their largest. The paper gives no threshold, so nothing is flagged. Two
    classes are no different.

    Needs: gradients, units, clean labelled samples. Declines a model without a linear head.

    Values are those of the authors' command (400 steps for the mask; noise from one batch of 128).

    Deviations from the paper: any norm layers take the noise (paper: BatchNorm), and where there are none, all
    convolution, linear and attention units; the mask is over what enters the head (paper: the last stage's map); the
    network stays in eval mode. The paper reads the histogram of predictions (in the evidence), which saturates at one
    class for many small models, clean ones too; mean posteriors say the same and tell more.
    """

    contract_unshown: ClassVar[str] = "its score differs more between two seeds of a toy than by poison"

    rows: int = 500
    """Clean samples used, the same number for every class."""
    mask_steps: int = 400
    """Optimizer steps for the mask."""
    lr: float = 0.01
    """Learning rate of Adam for the mask."""
    weight: float = 0.75
    """Weight of the mask's size in the loss (the paper's lambda)."""
    batch: int = 128
    """Batch size."""
    eps: float = 0.3
    """Bound on the relative noise on a neuron's weight and bias."""
    steps: int = 30
    """Steps of sign-gradient ascent, each of size eps / steps."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        if model.head is None:
            raise NotApplicable("no linear head was found, so there are no features to mask")
        head = model.module.get_submodule(model.head)
        rows = clean.sample(self.rows, "ban", seed, balanced=True)
        rng = generator("ban", seed)
        with frozen(model.module):
            mask = self._mask(model, head, rows, rng)
            noise = _Noise(model, self.eps, rng)
            if not noise.layers:
                raise NotApplicable("the model has no layer with units besides its head")
            loss = self._ascend(model, rows, noise, rng)
            with noise.written(), torch.no_grad():
                hidden = model.features(rows.x)
                logits = head((1 - mask) * hidden.to(mask)).float().cpu()
                noisy = head(hidden.to(mask)).argmax(1).cpu()
        shares = torch.bincount(logits.argmax(1), minlength=model.classes).float() / len(logits)
        soft = logits.log_softmax(1).logsumexp(0) - math.log(len(logits))
        odds = soft - torch.log1p(-soft.exp().clamp_max(1 - 1e-6))
        return Finding(
            score=float(odds.max()),
            target=int(odds.argmax()),
            per_class=odds,
            evidence={
                "shares": [round(s, 4) for s in shares.tolist()],
                "noisy_accuracy": round(float((noisy == rows.y).float().mean()), 4),
                "noisy_loss": [round(v, 4) for v in loss],
                "mask_mean": round(float(mask.mean()), 4),
                "layers": list(noise.layers),
            },
        )

    def _mask(self, model: Model, head: nn.Module, rows: Data, rng: torch.Generator) -> Tensor:
        """(D,) in [0, 1]: which features clean samples need."""
        hidden, y = model.features(rows.x).to(model.device), rows.y.to(model.device)
        mask = nn.Parameter(torch.rand(hidden.shape[1], generator=rng).to(hidden))
        optimizer = torch.optim.Adam([mask], lr=self.lr)
        batches = _batches(len(y), self.batch, rng)
        for _ in range(self.mask_steps):
            at = next(batches).to(y.device)
            optimizer.zero_grad(set_to_none=True)
            decoupling(head, mask, hidden[at], y[at], self.weight).backward()
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        return mask.detach()

    def _ascend(self, model: Model, rows: Data, noise: _Noise, rng: torch.Generator) -> list[float]:
        """Grow the noise on one batch; its first and last loss."""
        seen, part = [], rows[next(_batches(len(rows), self.batch, rng))]
        for _ in range(self.steps):
            loss = torch.zeros((), device=model.device)
            for some in torch.arange(len(part)).split(model.gradient_chunk):
                few = part[some]
                with noise.written():
                    logits = model.logits_at(model.embed(few.x))
                share = F.cross_entropy(logits, few.y.to(logits.device), reduction="sum") / len(part)
                noise.collect(share)
                loss += share.detach()
            noise.step(self.eps / self.steps)
            seen.append(loss)
        return [float(seen[0]), float(seen[-1])] if seen else []


def decoupling(head: nn.Module, mask: Tensor, hidden: Tensor, y: Tensor, weight: float) -> Tensor:
    """What the mask minimises: what it keeps classifies, what it leaves does not, and it is small."""
    kept, rest = head(mask * hidden), head((1 - mask) * hidden)
    return F.cross_entropy(kept, y) - F.cross_entropy(rest, y) + weight * mask.sum().clamp_min(1e-6).log()


def _batches(rows: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Row numbers in batches without end, every row once before any comes again."""
    while True:
        yield from torch.randperm(rows, generator=rng).split(size)


class _Noise:
    """Relative noise on units' weights and biases: (1 + n_w) (output - bias) + (1 + n_b) bias."""

    def __init__(self, model: Model, eps: float, rng: torch.Generator) -> None:
        self.model, self.eps = model, eps
        units = model.units()
        norms = [u for u in units if u.kind == "norm"]
        self.layers: dict[str, tuple[Tensor, Tensor]] = {}
        self.biases: dict[str, Tensor] = {}
        for unit in norms or units:
            draw = (2 * torch.rand(2, unit.count, generator=rng) - 1) * eps
            weight, bias = (n.to(model.device).requires_grad_() for n in draw)
            self.layers[unit.layer] = (weight, bias)
            layer = model.module.get_submodule(unit.layer)
            known = (layer.out_proj if isinstance(layer, nn.MultiheadAttention) else layer).bias
            self.biases[unit.layer] = known.detach() if isinstance(known, Tensor) else torch.zeros_like(weight)

    def written(self) -> AbstractContextManager[Model]:
        """The model with the noise in it."""
        gates = {
            name: Gate(1 + weight, (bias - weight) * self.biases[name]) for name, (weight, bias) in self.layers.items()
        }
        return self.model.gated(gates)

    def collect(self, loss: Tensor) -> None:
        """Add the slopes of a part of the batch's loss."""
        loss.backward()

    def step(self, size: float) -> None:
        """One sign-gradient step up, within eps."""
        with torch.no_grad():
            for n in (n for pair in self.layers.values() for n in pair):
                if n.grad is not None:
                    n.add_(size * n.grad.sign()).clamp_(-self.eps, self.eps)
                n.grad = None
