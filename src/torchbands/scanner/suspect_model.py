"""What `scan` is given as a model that can be looked at, with the clean rows to look with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.model import Model

from .in_memory import reading, rows_of
from .in_memory_columns import Numbers
from .predictor import predictor
from .references import ReferenceSet
from .rows import Rows
from .same_network import as_references_read


def suspect_and_rows(
    model: Any, data: Any, reference_set: ReferenceSet | None, mean: Numbers | None, std: Numbers | None
) -> tuple[Model, Data, Rows | None]:
    """The suspect, the samples to look with, and the rows that they are where no references bring them."""
    if reference_set is None and data is None:
        raise InputError(
            "a scan needs clean labelled rows or reference models",
            hint="scan(model, (x, y)) or scan(model, refs='refs/'); at the command line: --data or --refs",
        )
    made = model if isinstance(model, Model) else getattr(model, "model", None)
    if isinstance(made, Model):
        if reference_set is not None and made.classes != reference_set.classes:
            raise InputError(f"the model has {made.classes} classes, the references have {reference_set.classes}")
        rows = None if reference_set is not None else rows_of(data, modality=made.modality, mean=mean, std=std)
        clean = reference_set.clean if rows is None else data if isinstance(data, Data) else rows.data  # type: ignore[union-attr]
        made = _answering(made, clean)
        if reference_set is not None:
            return as_references_read(made, reference_set), clean, None
        return made, clean, rows
    if not isinstance(model, nn.Module):
        raise InputError(f"a suspect is an nn.Module or a Model, got {type(model).__name__}")
    if reference_set is not None:
        module = reading(model, reference_set.modality, mean, std)
        made = predictor(module, reference_set.clean, reference_set.modality, reference_set.classes)
        return as_references_read(_answering(made, reference_set.clean), reference_set), reference_set.clean, None
    rows = rows_of(data, mean=mean, std=std)
    if rows.modality.discrete:
        raise InputError(
            f"how a network takes {rows.modality.name} cannot be told from the rows",
            hint="wrap the network: Model.wrap(module, modality, classes)",
        )
    made = predictor(reading(model, rows.modality, mean, std), rows.data, rows.modality)
    return _answering(made, rows.data), rows.data, rows


def _answering(model: Model, clean: Data) -> Model:
    """The model, if it gives as many answers as it has classes."""
    said = model.logits(take(clean.x, torch.arange(1))).shape[-1]
    if (highest := int(clean.y.max())) >= model.classes:
        raise InputError(
            f"the rows have labels up to {highest}, the model has classes 0 to {model.classes - 1}",
            hint="number the labels as the model's classes, or give the rows that it was trained for",
        )
    if said != model.classes:
        raise InputError(
            f"the model gives {said} answers for each sample, expected {model.classes}, one for each class"
        )
    return model


def names_of(given: Sequence[str] | None, reference_set: ReferenceSet | None, model: Model) -> list[str]:
    if given and len(given) != model.classes:
        raise InputError(f"{len(given)} class names were given for {model.classes} classes")
    names = list(given or (reference_set.class_names if reference_set is not None else ()))
    return names if len(names) == model.classes else [str(k) for k in range(model.classes)]
