"""The model that data filters look through: the one given, the task's own, or a small network for these rows."""

from __future__ import annotations

import math

import torch

from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.recipe import Network, Progress, Recipe
from torchbands.core.registry import build
from torchbands.learners.sgd import SGD

from .rows import Rows

#: Steps that a small data set gets at least, epochs that no data set gets more of.
STEPS, MOST_EPOCHS = 400, 40


def model_for(rows: Rows, model: Model | None, seed: int, progress: Progress | None = None) -> tuple[Model, str]:
    """A model trained on the rows, and what to say of it.

    Raises InputError where a given model does not take these rows, or where nothing is known that reads them.
    """
    if model is not None and "features" in model.capabilities:
        if model.classes < rows.classes:
            raise InputError(f"the model has {model.classes} classes, the data {rows.classes}")
        model.modality.check(rows.data.x[torch.arange(1)] if not isinstance(rows.data.x, list) else rows.data.x[:1])
        return model, "the model given"
    why = "" if model is None else " (the model given is a black box, which shows no features)"
    if rows.task is not None:
        made = rows.task.train(rows.data, seed=seed, progress=progress)
        return made, f"{rows.task.network.label()} trained here by the recipe of {rows.task.name}{why}"
    recipe = default_recipe(rows)
    try:
        made = recipe.train(rows.data, seed=seed, progress=progress)
    except NotApplicable as error:
        raise InputError(f"no network is known for these rows: {error.reason}", hint="give a model") from None
    return made, f"{recipe.network.label()} trained here{why}"


def default_recipe(rows: Rows) -> Recipe:
    """A small network for the kind of sample, and enough epochs for a small data set."""
    batch = 128 if len(rows) >= 2000 else 32
    epochs = max(5, min(MOST_EPOCHS, math.ceil(STEPS / math.ceil(len(rows) / batch))))
    adamw = SGD(epochs=epochs, batch=batch, lr=3e-3, optimizer="adamw")
    network = build(rows.modality.default_network(), "network")
    assert isinstance(network, Network)
    return Recipe(network, adamw, rows.modality, rows.classes)
