"""BatchNorm mismatch: running statistics remember poisoned training data that clean data do not reproduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@method(
    "batchnorm-mismatch",
    paper="after BNP (Zheng et al., NeurIPS 2022)",
    needs=("weights", "clean:512"),
)
class BatchNormMismatch(ModelDetector):
    """Distance of BatchNorm's running statistics from those of clean data. Evidence, never a verdict.

    Of every channel |running mean - mean| / sd and |log(running variance / variance)|, measured in one pass in eval
    mode. `statistics` holds, for every BatchNorm layer in the order of use, the mean and the largest of the first and
    the mean and the largest of the second; the score is the mean of the layers' means. Nothing is flagged.

    Augmentation, label noise and other data than the training set's raise it as poison does, and an attacker lowers it
    for free by estimating the running statistics again on clean data.

    Needs: weights, clean samples (their labels are not read). Declines a model without running BatchNorm statistics.

    Deviations from the paper: BNP prunes the neurons whose stored distribution is far, by Kullback-Leibler divergence,
    from that of clean data; here the two parts of that divergence are read as statistics of the whole model.
    """

    rows: int = 512
    """Clean samples used."""

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        layers = {name: m for name, m in model.module.named_modules() if _keeps(m)}
        if not layers:
            raise NotApplicable("the model has no BatchNorm layer with running statistics")
        moments = _measure(model, layers, clean.sample(self.rows, self.name, seed).x)
        if not moments:
            raise NotApplicable("no BatchNorm layer of the model is used in its forward pass")
        means, logs = zip(*[_mismatch(layers[name], *found) for name, found in moments.items()], strict=True)
        per_layer = torch.stack([torch.stack([m.mean(), m.max(), v.mean(), v.max()]) for m, v in zip(means, logs)])
        per_layer = per_layer.float()
        return Finding(
            score=float(per_layer[:, (0, 2)].mean()),
            statistics=per_layer.flatten(),
            evidence={
                "columns": ["mean shift", "largest mean shift", "log variance ratio", "largest log variance ratio"],
                "layers": dict(zip(moments, [[round(v, 5) for v in row] for row in per_layer.tolist()], strict=True)),
            },
        )


def _keeps(module: nn.Module) -> bool:
    return isinstance(module, _BATCH_NORM) and isinstance(module.running_mean, Tensor)


def _measure(model: Model, layers: dict[str, nn.Module], x: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> (channels,) mean and variance of what enters it, in the order of use."""
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            h = args[0].detach().double()
            over = [0, *range(2, h.ndim)]
            here = [h.sum(over), h.square().sum(over)]
            sums[name] = [a + b for a, b in zip(sums[name], here, strict=True)] if name in sums else here
            counts[name] = counts.get(name, 0) + h.numel() // h.shape[1]

        return hook

    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        model.at_precision("float32").logits(x)
    finally:
        for handle in handles:
            handle.remove()
    out = {}
    for name, (first, second) in sums.items():
        mean = first / counts[name]
        out[name] = (mean, (second / counts[name] - mean.square()).clamp_min(0))
    return out


def _mismatch(layer: nn.Module, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """(channels,) shift of the mean in standard deviations, and |log ratio| of the variances."""
    assert isinstance(layer, _BATCH_NORM) and layer.running_mean is not None and layer.running_var is not None
    variance = variance + layer.eps
    shift = (layer.running_mean.double() - mean).abs() / variance.sqrt()
    ratio = ((layer.running_var.double() + layer.eps) / variance).log().abs()
    return shift.cpu(), ratio.cpu()
