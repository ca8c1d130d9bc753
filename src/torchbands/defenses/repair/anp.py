"""ANP: neurons that are sensitive to adversarial perturbation carry the backdoor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.defense import Repair, require
from torchbands.core.errors import NotApplicable
from torchbands.core.layers import Gate, Unit
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seed_of

Shape = dict[str, Tensor]


@method(
    "anp",
    paper="Wu and Wang, NeurIPS 2021, arXiv:2110.14430",
    needs=("gradients", "units", "weights", "clean:500"),
    version=2,
)
class ANP(Repair):
    """Adversarial neuron pruning: learns masks against worst-case neuron noise and prunes neurons with small masks.

    Each half of the clean rows learns masks, and their mean is pruned. Of the thresholds 0, .05, ... .9 the largest is
    taken at which accuracy falls by no more than `tolerance`, or than `errors` standard errors of it where rows are
    few, both where each half's masks are judged by the other half and for the mean on all rows. So every clean row
    judges, none only masks that it taught, no triggered row is ever seen, and a threshold that fails does not end the
    search.

    As in the paper a mask scales a unit's weight and leaves its bias, and the noise moves both.

    Deviations from the paper: masks of two halves, where the paper has one set; the network stays in eval mode, so
    running statistics are not touched; 100 steps for each half instead of 2,000 in all, after which more made no steady
    difference on small networks; where there are no channel norms, the units are those of convolutional, linear and
    attention layers.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"steps": 50}

    eps: float = 0.4
    """Bound on the relative noise on a neuron's weight and bias."""
    alpha: float = 0.2
    """Weight of the clean loss; the loss under noise gets the rest."""
    lr: float = 0.2
    """Learning rate of the masks."""
    steps: int = 100
    """Optimizer steps for each half's masks."""
    batch: int = 128
    """Batch size."""
    tolerance: float = 0.02
    """Largest drop of clean accuracy by pruning, as a fraction."""
    errors: float = 2.0
    """The same in standard errors of the accuracy; the larger of the two applies."""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        order = torch.randperm(len(clean), generator=generator("anp", seed))
        halves = [clean[rows] for rows in order.tensor_split(2) if len(rows)]
        masks = [self.masks(model.clone(), half, seed_of("anp half", seed, at)) for at, half in enumerate(halves)]
        loss = allowed_loss(model, clean, self.tolerance, self.errors)
        return pruned(model, choose(model, masks, halves[::-1], loss))

    def masks(self, model: Model, clean: Data, seed: int) -> Shape:
        """(units,) masks in [0, 1] by layer; the model is left as it was but for its gradients."""
        rng, device = generator("anp masks", seed), model.device
        e, y = model.encode(whole(clean.x)), clean.y.to(device)
        units = prunable(model)
        biases = {u.layer: _bias(model, u) for u in units}
        model.module.requires_grad_(False)
        masks = {u.layer: torch.ones(u.count, device=device, requires_grad=True) for u in units}
        optimizer = torch.optim.SGD(masks.values(), lr=self.lr, momentum=0.9)
        for _ in range(self.steps):
            rows = torch.randint(len(y), (min(self.batch, len(y)),), generator=rng).to(device)
            batch, labels = e.at(rows), y[rows]
            noise = self._worst_noise(model, masks, biases, batch, labels, rng)
            natural = _loss(model, masks, biases, batch, labels)
            robust = _loss(model, masks, biases, batch, labels, noise)
            optimizer.zero_grad(set_to_none=True)
            (self.alpha * natural + (1 - self.alpha) * robust).backward()
            optimizer.step()
            with torch.no_grad():
                for mask in masks.values():
                    mask.clamp_(0.0, 1.0)
        return {name: mask.detach() for name, mask in masks.items()}

    def _worst_noise(
        self, model: Model, masks: Shape, biases: Shape, e: Encoded, y: Tensor, rng: torch.Generator
    ) -> tuple[Shape, Shape]:
        """One signed gradient step of size eps from a random start, clipped to [-eps, eps]."""
        noise = [
            {k: ((torch.rand(m.shape, generator=rng) * 2 - 1) * self.eps).to(m.device) for k, m in masks.items()}
            for _ in range(2)
        ]
        free = [n.requires_grad_() for part in noise for n in part.values()]
        fixed = {k: m.detach() for k, m in masks.items()}
        loss = _loss(model, fixed, biases, e, y, (noise[0], noise[1]))
        for n, g in zip(free, torch.autograd.grad(loss, free, allow_unused=True)):
            if g is not None:
                n.data.add_(self.eps * g.sign()).clamp_(-self.eps, self.eps)
        scale, shift = ({k: n.detach() for k, n in part.items()} for part in noise)
        return scale, shift


def prunable(model: Model) -> list[Unit]:
    """Channel norms where there are any, else every other layer with units."""
    units = model.units()
    chosen = [u for u in units if u.kind == "norm" and u.dim == 1] or [u for u in units if u.kind != "norm"]
    if not chosen:
        raise NotApplicable("the network has no layer whose units can be pruned")
    return chosen


def choose(model: Model, masks: Sequence[Shape], judges: Sequence[Data], loss: float) -> Shape:
    """0/1 scales of the masks' mean at the largest threshold (0, .05, ... .9) that loses at most `loss` of accuracy.

    Args:
        judges: for each of the masks, the rows that judge it; all of them together judge the mean.
    """
    limits = [accuracy(model, rows) for rows in judges]
    sizes = [len(rows) for rows in judges]
    limit = sum(a * n for a, n in zip(limits, sizes)) / sum(sizes) - loss
    mean = {name: torch.stack([m[name] for m in masks]).mean(0) for name in masks[0]}
    candidates = [*masks, mean]

    def kept(threshold: float) -> list[Shape]:
        return [{name: (mask > threshold).to(mask) for name, mask in one.items()} for one in candidates]

    def holds(scales: list[Shape]) -> bool:
        apart = [(scales[i], [rows]) for i, rows in enumerate(judges)]
        return _accuracy(model, apart) >= limit and _accuracy(model, [(scales[-1], judges)]) >= limit

    failed: list[Shape] = []
    for step in reversed(range(19)):
        scales = kept(0.05 * step)
        if failed and all(torch.equal(a[k], b[k]) for a, b in zip(scales, failed) for k in a):
            continue  # nothing differs from the threshold before
        if holds(scales):
            return scales[-1]
        failed = scales
    return {name: torch.ones_like(mask) for name, mask in mean.items()}


def _accuracy(model: Model, judged: Sequence[tuple[Shape, Sequence[Data]]]) -> float:
    """Of pruned networks on their rows, all rows counted alike."""
    biases = {u.layer: _bias(model, u) for u in prunable(model)}
    right, count = 0.0, 0
    for scales, parts in judged:
        with model.gated({name: Gate(scale, (1 - scale) * biases[name]) for name, scale in scales.items()}):
            for rows in parts:
                right, count = right + accuracy(model, rows) * len(rows), count + len(rows)
    return right / count


def allowed_loss(model: Model, clean: Data, tolerance: float, errors: float) -> float:
    """What pruning may cost: `tolerance`, or `errors` standard errors of the model's accuracy where that is more."""
    share = (accuracy(model, clean) * len(clean) + 1) / (len(clean) + 2)  # never 0 or 1: few rows prove little
    return max(tolerance, errors * math.sqrt(share * (1 - share) / len(clean)))


def accuracy(model: Model, rows: Data) -> float:
    """Share of labelled rows that are read rightly."""
    return float((model.logits(rows.x).argmax(1) == rows.y).float().mean())


def pruned(model: Model, scales: Shape) -> Model:
    """A clone whose units' weights carry (units,) scales; biases stay."""
    out = model.clone()
    for name, scale in scales.items():
        layer = out.module.get_submodule(name)
        weight = getattr(layer, "out_proj", layer).weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
    return out


def _bias(model: Model, unit: Unit) -> Tensor:
    layer = model.module.get_submodule(unit.layer)
    bias = getattr(getattr(layer, "out_proj", layer), "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else torch.zeros(unit.count, device=model.device)


def _loss(
    model: Model, masks: Shape, biases: Shape, e: Encoded, y: Tensor, noise: tuple[Shape, Shape] | None = None
) -> Tensor:
    gates = {}
    for name, mask in masks.items():
        weight = mask if noise is None else mask + noise[0][name]
        bias = 1.0 if noise is None else 1 + noise[1][name]
        gates[name] = Gate(weight, (bias - weight) * biases[name])  # weight (Wx) + bias b, from Wx + b
    with model.gated(gates):
        return F.cross_entropy(model.run(e).float(), y)
