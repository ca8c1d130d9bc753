"""ANP: neurons that turn a network against clean data when nudged carry the backdoor."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.data import Data, whole
from torchbands.core.defense import Repair, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.layers import Gate, Unit
from torchbands.core.method import method
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.seeding import generator

Shape = dict[str, Tensor]


@method(
    "anp", paper="Wu and Wang, NeurIPS 2021, arXiv:2110.14430", needs=("gradients", "units", "weights", "clean:500")
)
class ANP(Repair):
    """Adversarial neuron pruning: masks learned against worst-case neuron noise on clean data; small masks are pruned.

    The threshold is the largest at which accuracy on held-out clean rows stays within `tolerance`, in steps of .05:
    no triggered row is ever seen.

    As in the paper a mask scales a unit's weight and leaves its bias, and the noise moves both.

    Deviations from the paper: the network stays in eval mode, so running statistics are not touched; 200 steps instead
    of 2,000, after which more made no steady difference on small networks; where there are no channel norms, the units
    are those of convolutional, linear and attention layers.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"steps": 100}

    eps: float = 0.4
    """Largest relative noise on a neuron's weight and bias."""
    alpha: float = 0.2
    """Weight of the loss without noise; the loss under noise has the rest."""
    lr: float = 0.2
    """Of the masks."""
    steps: int = 200
    """Updates of the masks."""
    batch: int = 128
    """Rows per step."""
    tolerance: float = 0.02
    """Largest loss of held-out clean accuracy by pruning, as a fraction."""
    held_out: float = 0.2
    """Share of the clean rows that chooses the threshold."""

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out < 1.0:
            raise InputError(f"held_out is a fraction between 0 and 1, got {self.held_out}")

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        require(self, model, clean)
        order = torch.randperm(len(clean), generator=generator("anp", seed))
        cut = max(1, round(self.held_out * len(clean)))
        masks = self.masks(model.clone(), clean[order[cut:]] if cut < len(clean) else clean, seed)
        return pruned(model, choose(model, masks, clean[order[:cut]], self.tolerance))

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


def choose(model: Model, masks: Shape, held_out: Data, tolerance: float) -> Shape:
    """0/1 scales at the largest threshold (0, .05, ... .9) whose clean accuracy is within tolerance of no pruning."""
    limit = float((model.logits(held_out.x).argmax(1) == held_out.y).float().mean()) - tolerance
    biases = {u.layer: _bias(model, u) for u in prunable(model)}
    best = {name: torch.ones_like(mask) for name, mask in masks.items()}
    for step in range(19):
        scales = {name: (mask > 0.05 * step).to(mask) for name, mask in masks.items()}
        with model.gated({name: Gate(scale, (1 - scale) * biases[name]) for name, scale in scales.items()}):
            accuracy = float((model.logits(held_out.x).argmax(1) == held_out.y).float().mean())
        if accuracy < limit:
            break
        best = scales
    return best


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
