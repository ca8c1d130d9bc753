"""DAN: distance of an input's features from the clean samples of every class, combined over all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchbands.core.data import Batch, Column, Data, take
from torchbands.core.defense import FittedDetector, InputDetector, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator

#: Samples whose features of all layers are held at once.
TOGETHER = 4096
#: How much of the pooled covariance is replaced by its mean diagonal.
SHRINKAGE = 0.1


class Layer(NamedTuple):
    """What is normal for a layer: (D, D) whitening, (K, D) whitened class means, (2,) mean and deviation of distances
    of clean samples."""

    whiten: Tensor
    means: Tensor
    usual: Tensor

    def distance(self, features: Tensor) -> Tensor:
        """(N,) squared Mahalanobis distance of (N, D) features to the nearest class."""
        return torch.cdist(features.double() @ self.whiten, self.means).amin(1).square()


@method("dan", paper="Chen et al., Findings of EMNLP 2022, arXiv:2210.07907", needs=("features", "clean:512"))
class DAN(InputDetector):
    """Mahalanobis distance to the nearest clean class, normalised per layer and averaged over the layers.

    In each layer the classes have means of their own and one covariance, from four fifths of the clean samples; the
    distances of the others give the mean and the deviation by which a layer's distances are normalised, and the
    threshold, which leaves `frr` of them above it.

    Needs: features, clean labelled samples.

    Deviations from the paper: the layers are those whose output is a norm along the units, as at the end of each
    transformer block, and where there are none every convolution and linear layer; what enters the linear head is one
    more (paper: the blocks of a transformer). Outputs are averaged over tokens or space.

    Cost: one forward pass per input.
    """

    aggregate: Literal["mean", "max"] = "mean"
    """How scores are combined over the layers."""
    frr: float = 0.05
    """False rejection rate: the fraction of clean inputs that may be rejected."""

    def __post_init__(self) -> None:
        if not 0 < self.frr < 1:
            raise InputError(f"dan: frr is a share between 0 and 1, got {self.frr}")

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        require(self, model, clean)
        if len(clean) < 10:
            raise InputError(f"dan needs clean samples to learn from and others to compare, got {len(clean)}, not 10")
        names = layers_of(model)
        order = torch.randperm(len(clean), generator=generator("dan", seed))
        kept, read = order[: len(clean) // 5], order[len(clean) // 5 :]
        fitted = FittedDAN(model, names, [], self.aggregate == "max")
        y = clean.y[read]
        features = model.features_of(clean.x, names)
        for h in features:
            fitted.layers.append(_normal(h[read], y, h[kept]))
        fitted.threshold = float(fitted.joined([h[kept] for h in features]).quantile(1 - self.frr))
        return fitted

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        layers = [Layer(*(tensors[f"{i}.{part}"] for part in Layer._fields)) for i in range(len(facts["layers"]))]
        return FittedDAN(model, facts["layers"], layers, bool(facts["largest"]), float(facts["threshold"]))


@dataclass
class FittedDAN(FittedDetector):
    """DAN with what is normal for each of its layers; None is what enters the linear head."""

    model: Model
    names: list[str | None]
    layers: list[Layer]
    largest: bool
    threshold: float | None = None

    def score(self, x: Batch | Column) -> Tensor:
        """(N,) normalised distance: about 0 for clean inputs."""
        parts = [
            self.joined(self.model.features_of(take(x, rows), self.names))
            for rows in torch.arange(len(x)).split(TOGETHER)
            if len(rows)
        ]
        return per_row(torch.cat([torch.zeros(0, dtype=torch.float64), *parts]), len(x), "dan")

    def joined(self, features: list[Tensor]) -> Tensor:
        """(N,) from the features of each layer."""
        each = [(layer.distance(h) - layer.usual[0]) / layer.usual[1] for layer, h in zip(self.layers, features)]
        together = torch.stack(each)
        return together.amax(0) if self.largest else together.mean(0)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        held = {f"{i}.{k}": t for i, layer in enumerate(self.layers) for k, t in layer._asdict().items()}
        return held, {"layers": self.names, "largest": self.largest, "threshold": self.threshold}


def layers_of(model: Model) -> list[str | None]:
    """Layers that are compared; None is what enters the linear head."""
    units = model.units()
    norms = [u.layer for u in units if u.kind == "norm" and u.dim == -1]
    names: list[str | None] = [*(norms or [u.layer for u in units if u.kind != "norm"])]
    return [*names, None] if model.head is not None else names


def _normal(features: Tensor, y: Tensor, others: Tensor) -> Layer:
    features = features.double()
    known, place = y.unique(return_inverse=True)
    means = torch.zeros(len(known), features.shape[1], dtype=torch.float64).index_add_(0, place, features)
    means /= torch.bincount(place)[:, None]
    centred = features - means[place]
    covariance = centred.T @ centred / len(features)
    level = covariance.diagonal().mean().clamp_min(1e-12)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(covariance), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(shrunk)
    whiten = vectors * values.clamp_min(SHRINKAGE * float(level) / 2).rsqrt()
    made = Layer(whiten, means @ whiten, torch.tensor([0.0, 1.0], dtype=torch.float64))
    usual = made.distance(others)
    return made._replace(usual=torch.stack([usual.mean(), usual.std(correction=0).clamp_min(1e-9)]))
