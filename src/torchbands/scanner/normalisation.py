"""The usual normalisations of images, put before a model that brings none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from torchbands.core.data import Data, take
from torchbands.core.model import Model
from torchbands.modalities.image import Image
from torchbands.networks.layers import Normalize

#: name -> mean and std per channel, of three channels and of one.
USUAL: dict[int, dict[str, tuple[Sequence[float], Sequence[float]]]] = {
    3: {
        "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "to -1 ... 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "to 0 ... 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    },
    1: {
        "MNIST's": ((0.1307,), (0.3081,)),
        "Fashion-MNIST's": ((0.286,), (0.353,)),
        "to -1 ... 1": ((0.5,), (0.5,)),
        "to 0 ... 255": ((0.0,), (1 / 255,)),
    },
}


def flags(mean: Sequence[float], std: Sequence[float]) -> str:
    """--mean and --std as they are typed."""
    return f"--mean {','.join(f'{m:.4g}' for m in mean)} --std {','.join(f'{s:.4g}' for s in std)}"


def usual(model: Model, rows: Data) -> Iterator[tuple[str, Sequence[float], Sequence[float], Model]]:
    """(name, mean, std, the model with it) of the usual normalisations, and of the rows' own; none for samples that are
    no images, and for a black box that has one already or is not an ONNX session."""
    if not isinstance(model.modality, Image):
        return
    x = take(rows.x, torch.arange(len(rows)))
    assert isinstance(x, Tensor)
    known = dict(USUAL.get(model.modality.channels, {}))
    known["the rows' own"] = (x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).clamp_min(1e-3).tolist())
    for name, (mean, std) in known.items():
        if (made := normalised(model, mean, std)) is not None:
            yield name, mean, std, made


def normalised(model: Model, mean: Sequence[float], std: Sequence[float]) -> Model | None:
    """The model with (x - mean) / std before it; None for a black box that takes none."""
    if "weights" not in model.capabilities:
        from .opening.onnx import normalised as of_session

        box = of_session(model.predict, list(mean), list(std))
        return None if box is None else Model.black_box(box, model.modality, model.classes)
    layer = Normalize(len(mean), list(mean), list(std), 4).to(model.device)
    return Model(nn.Sequential(layer, model.module), model.modality, model.classes, precision=model.precision)


def accuracy_of(model: Model, rows: Data) -> float:
    """The share of rows that it knows."""
    return float((model.logits(rows.x).argmax(1).cpu() == rows.y.cpu()).float().mean())
