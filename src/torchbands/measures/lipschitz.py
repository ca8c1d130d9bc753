"""Channel Lipschitz bounds (Zheng et al., ECCV 2022, arXiv:2208.03111), generalised from conv-BatchNorm to any unit.

A unit that reacts to a trigger amplifies its input far more than its neighbours do. No data is needed to see that.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from torchbands.core.model import Model


@torch.no_grad()
def channel_lipschitz(model: Model) -> dict[str, Tensor]:
    """Upper bound of every unit's Lipschitz constant, from weights alone.

    A convolution's unit is bounded by the spectral norm of its slice reshaped to (in, kernel positions), a linear or
    attention unit by the Euclidean norm of its row. Where a norm takes that layer's output, the bound is
    multiplied by |gain| / running standard deviation (|gain| alone for LayerNorm and GroupNorm, which keep none).
    Pooling and activations between the two do not matter, a residual sum does.

    Returns:
        path of the layer whose units are to be pruned (the norm that follows, else the layer itself) -> (units,)
        float32 on the CPU. The linear head has no such units. Empty where the model has none.
    """
    norms = _norms(model)
    bounds: dict[str, Tensor] = {}
    for unit in model.units():
        if unit.kind == "norm":
            continue
        bound = _slices(model.module.get_submodule(unit.layer))
        norm = norms.get(unit.layer)
        if norm is not None:
            bound = bound * _gain(model.module.get_submodule(norm))
        bounds[norm or unit.layer] = bound.float().cpu()
    return bounds


def z_scores(bounds: Tensor) -> Tensor:
    """(units,) standard scores within one layer; zeros where all units are alike or there is only one.

    Of n units none can exceed (n - 1) / sqrt(n): a layer of fewer than 11 units never passes 3.
    """
    if len(bounds) < 2:
        return torch.zeros_like(bounds)
    spread = bounds.std()
    if not float(spread) > 1e-6 * float(bounds.abs().mean()):
        return torch.zeros_like(bounds)
    return (bounds - bounds.mean()) / spread


def _norms(model: Model) -> dict[str, str]:
    """Layer -> the norm of as many units that takes its output and nothing else."""
    units = model.units()
    found = {u.follows: u.layer for u in units if u.kind == "norm" and u.follows is not None}
    for unit, after in pairwise(units):
        apart = unit.kind == "conv" and after.kind == "norm" and after.follows is None
        if apart and unit.count == after.count and _silences(model, unit.layer, after.layer):
            found[unit.layer] = after.layer
    return found


def _silences(model: Model, layer: str, norm: str) -> bool:
    """Whether the norm sees nothing once the layer's output is zero."""
    seen: list[Tensor] = []
    handles = [
        model.module.get_submodule(layer).register_forward_hook(lambda _, args, out: torch.zeros_like(out)),
        model.module.get_submodule(norm).register_forward_pre_hook(lambda _, args: seen.append(args[0])),
    ]
    try:
        model.modality.call(model.module, model.encode(model.modality.random(2, torch.Generator().manual_seed(0))))
    finally:
        for handle in handles:
            handle.remove()
    return all(not x.any() for x in seen)


def _slices(layer: nn.Module) -> Tensor:
    """(units,) spectral norm of each unit's weights."""
    weight = (layer.out_proj if isinstance(layer, nn.MultiheadAttention) else layer).weight
    assert isinstance(weight, Tensor)
    if weight.ndim == 2:
        norms: Tensor = torch.linalg.vector_norm(weight.double(), dim=1)
        return norms
    matrix = weight.double().flatten(2)
    if matrix.shape[1] < matrix.shape[2]:
        matrix = matrix.transpose(1, 2)
    gram = matrix.transpose(1, 2) @ matrix
    largest: Tensor = torch.linalg.eigvalsh(gram)[:, -1]
    return largest.clamp_min(0).sqrt()


def _gain(norm: nn.Module) -> Tensor:
    """(units,) by which a norm multiplies its inputs."""
    gain = getattr(norm, "weight", None)
    assert isinstance(gain, Tensor)
    bound = gain.double().abs()
    variance, eps = getattr(norm, "running_var", None), float(getattr(norm, "eps", 0.0))
    return bound / torch.sqrt(variance.double() + eps) if isinstance(variance, Tensor) else bound
