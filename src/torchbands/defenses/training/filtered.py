"""Train, filter, retrain: the end-to-end effect of a data filter."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

import torch

from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, Training
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.recipe import Progress, Recipe
from torchbands.core.registry import build
from torchbands.core.seeding import seed_of


def _default() -> DataFilter:
    made = build("spectral-signatures", "data-filter")
    assert isinstance(made, DataFilter)
    return made


@method("filtered", paper="Chen et al., 2018, arXiv:1811.03728", needs=("training-run",))
class Filtered(Training):
    """Removes the rows that a data filter flags by its published rule, and trains on the rest from scratch.

    A filter's recall says little: two poisoned rows in a hundred can be enough for a backdoor, so what counts is the
    attack success of a model trained on what is left (He et al., EMNLP 2023, section 4.2.2).

    Deviations from the paper: any registered filter may stand in it, where Chen et al. have activation clustering;
    a class that would lose all of its rows keeps them; filters that need clean rows, or have no rule of their own,
    are declined.
    """

    contract_settings: ClassVar[dict[str, Any]] = {"filter": {"role": "data-filter", "name": "cube"}}

    filter: DataFilter = field(default_factory=_default)
    """The data filter that flags rows. One that needs a model gets one trained on all rows."""

    def train(self, recipe: Recipe, data: Data, *, seed: int = 0, progress: Progress | None = None) -> Model:
        if self.filter.clean_needed():
            raise NotApplicable(f"{self.filter.name} needs clean rows, which a training is not given")
        looks = {need.split(":")[0] for need in self.filter.needs} & {"features", "gradients", "weights", "logits"}
        first = recipe.train(data, seed=seed_of("first", seed), progress=progress) if looks else recipe.fresh(seed)
        suspicion = self.filter.score(data, first, seed=seed)
        if suspicion.flagged is None:
            raise NotApplicable(f"{self.filter.name} has no rule of its own")
        keep = ~suspicion.flagged
        lost = torch.bincount(data.y[keep], minlength=recipe.classes) == 0
        keep = keep | lost[data.y]
        model = recipe.train(data[keep.nonzero().flatten()], seed=seed, progress=progress)
        model.passes.forward += first.passes.forward
        model.passes.dtypes |= first.passes.dtypes
        return model
