"""The usual normalisations of a kind of sample, put before a model that brings none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from torchbands.core.data import Data, take
from torchbands.core.model import Model
from torchbands.networks.layers import Normalize


def flags(mean: Sequence[float], std: Sequence[float]) -> str:
    """--mean and --std as they are typed."""
    return f"--mean {','.join(f'{m:.4g}' for m in mean)} --std {','.join(f'{s:.4g}' for s in std)}"


def usual(model: Model, rows: Data) -> Iterator[tuple[str, Sequence[float], Sequence[float], Model]]:
    """(name, mean, std, the model with it) of the usual normalisations, and of the rows' own; none for samples that
    nobody normalises, and for a black box that has one already or is not an ONNX session."""
    brought = model.modality.usual_normalisations()
    if brought is None:
        return
    x = take(rows.x, torch.arange(len(rows)))
    assert isinstance(x, Tensor)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    own = (x.mean(axes).tolist(), x.std(axes).clamp_min(1e-3).tolist())
    known = {**brought, "the rows' own": own}
    for name, (mean, std) in known.items():
        if (made := normalised(model, mean, std)) is not None:
            yield name, mean, std, made


def normalised(model: Model, mean: Sequence[float], std: Sequence[float]) -> Model | None:
    """The model with (x - mean) / std before it; None for a black box that takes none."""
    if "weights" not in model.capabilities:
        from .opening.onnx import normalised as of_session

        box = of_session(model.predict, list(mean), list(std))
        return None if box is None else Model.black_box(box, model.modality, model.classes)
    shape = model.modality.row_shape or ()
    layer = Normalize(len(mean), list(mean), list(std), 1 + len(shape)).to(model.device)
    return Model(nn.Sequential(layer, model.module), model.modality, model.classes, precision=model.precision)


def accuracy_of(model: Model, rows: Data) -> float:
    """The share of rows that it knows."""
    return float((model.logits(rows.x).argmax(1).cpu() == rows.y.cpu()).float().mean())
