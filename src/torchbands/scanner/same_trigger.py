"""Same-trigger comparison: what a backdoor's trigger does, no other model does; an ordinary trigger works on many.

The cheapest trigger of every class is searched in every model of a pool, written on rows that no search has seen, and
shown to all other models of the pool. A class whose trigger the others do not obey is suspicious. All models, the
suspect among them, are treated alike, so the ranks that `calibrate` takes of these numbers are valid p-values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchbands.core.data import Batch, Data, concat, take
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.trigger import Trigger
from torchbands.defenses.models.target_inversion import TargetInversion

#: Rows that every trigger is shown on.
SHOWN = 10


def halves(clean: Data, seed: int) -> tuple[Data, Data]:
    """Rows to search triggers with, and others to show them on."""
    order = torch.randperm(len(clean), generator=generator("same-trigger", seed))
    middle = len(clean) // 2
    return clean[order[:middle].sort().values], clean[order[middle:].sort().values]


def written(shown: Data, triggers: Sequence[Trigger], seed: int) -> list[Batch]:
    """Every class's trigger on rows of other classes."""
    out: list[Batch] = []
    for k, trigger in enumerate(triggers):
        at = (shown.y != k).nonzero().flatten()[:SHOWN]
        if len(at) == 0:
            raise InputError(f"no row to show the trigger of class {k} on: all are of that class")
        out.append(trigger(take(shown.x, at), RowRng(seed_of("same-trigger", seed, k), at)))
    return out


def obeyed(model: Model, batches: Sequence[Batch]) -> Tensor:
    """(K,) how surely a model gives class k to the rows with trigger k: their mean log-probability."""
    said = model.logits(concat(batches)).float().log_softmax(1).split([len(x) for x in batches])
    return torch.stack([rows[:, k].mean() for k, rows in enumerate(said)]).cpu()


def table(models: Sequence[Model], clean: Data, *, search: TargetInversion | None = None, seed: int = 0) -> Tensor:
    """(m, m, K): what model j (second) makes of the trigger of class k that was searched in model i (first)."""
    searching, shown = halves(clean, seed)
    rows = []
    for model in models:
        triggers = (search or TargetInversion()).triggers(model, searching, seed=seed)
        batches = written(shown, triggers, seed)
        rows.append(torch.stack([obeyed(other, batches) for other in models]))
    return torch.stack(rows)


def disobeyed(table: Tensor) -> Tensor:
    """(m, m, K) -> (m, K): by how much the other models of the pool do not obey a model's triggers."""
    m = len(table)
    if m < 2:
        raise InputError("a trigger is shown to other models: at least 2 are needed")
    own = torch.eye(m, dtype=torch.bool)[:, :, None]
    return -table.masked_fill(own, 0.0).sum(1) / (m - 1)
