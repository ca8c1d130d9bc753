"""Anything that predicts, as a `Model`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from torchbands.core import kinds
from torchbands.core.data import Batch, Data, take
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.core.model import Model

from .heads import answering

_P = ParamSpec("_P")
_T = TypeVar("_T")


def keeps_modes(scan: Callable[_P, _T]) -> Callable[_P, _T]:
    """Put the layers of the network that a function is given first (`model`) back into the modes that they came in: a
    scan inside a training changes nothing."""

    @wraps(scan)
    def kept(*args: _P.args, **more: _P.kwargs) -> _T:
        given = args[0] if args else more.get("model")
        modes = [(layer, layer.training) for layer in given.modules()] if isinstance(given, nn.Module) else []
        try:
            return scan(*args, **more)
        finally:
            for layer, mode in modes:
                layer.training = mode

    return kept


def predictor(given: Any, rows: Data | None, modality: Modality | None = None, classes: int | None = None) -> Model:
    """A Model of an nn.Module, of an object with `predict_proba`, of a function to probabilities, or itself.

    Raises InputError where the kind of sample or the number of classes cannot be told.
    """
    if isinstance(given, Model):
        return given
    first = None if rows is None or len(rows) == 0 else take(rows.x, torch.arange(1))
    modality = modality or _modality(first)
    if isinstance(given, nn.Module):
        device = next((p.device for p in given.parameters()), torch.device("cpu"))
        e = modality.encode(_few(rows, modality)).to(device)
        module, found, notes = answering(given, modality, e, likely=classes or _classes(rows))
        if classes not in (None, found):
            raise InputError(f"the model gives {found} answers for each sample, expected {classes}, one for each class")
        made = Model(module, modality, found)
        made.facts |= {"notes": notes} if notes else {}
        return made
    predict = getattr(given, "predict_proba", given)
    if not callable(predict):
        raise InputError(f"a predictor is an nn.Module, a Model or a function, got {type(given).__name__}")
    as_array = predict is not given

    def probabilities(batch: Batch) -> Tensor:
        asked = batch.numpy() if as_array and isinstance(batch, Tensor) else batch
        answer = torch.as_tensor(predict(asked))
        if answer.ndim != 2 or len(answer) != len(batch):
            raise InputError(f"a predictor gives (N, K) probabilities, got {tuple(answer.shape)} for {len(batch)} rows")
        if float(answer.min()) < -1e-4 or float((answer.sum(1) - 1).abs().max()) > 1e-2:
            raise InputError("a predictor gives probabilities: rows that add up to 1", hint="apply softmax to logits")
        return answer.detach().cpu().float()

    if classes is None:
        classes = int(probabilities(first).shape[1])
    return Model.black_box(probabilities, modality, classes)


def _few(rows: Data | None, modality: Modality) -> Batch:
    """A few rows to look at the outputs with: those that are there, or noise."""
    if rows is None or len(rows) == 0:
        return modality.random(2, torch.Generator().manual_seed(0))
    return take(rows.x, torch.arange(min(8, len(rows))))


def _classes(rows: Data | None) -> int | None:
    return None if rows is None or len(rows) == 0 else int(rows.y.max()) + 1


def _modality(first: Batch | None) -> Modality:
    found = None if first is None else kinds.of_samples(first)
    if found is None:
        raise InputError(
            "only for square images (N, C, H, H) and flat numbers (N, F) can the kind of sample be told from the rows",
            hint="say what they are: Guard(model, modality=..., classes=...)",
        )
    return found
