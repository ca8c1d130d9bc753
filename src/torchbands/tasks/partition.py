"""How the rows of a data set are dealt to the clients of a federation."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.seeding import generator, seed_of

Partition = Literal["iid", "dirichlet", "column"]

#: Fewest rows of a client: one row alone has no variance, on which batch norms end.
LEAST = 2
#: How often a Dirichlet partition is drawn anew where it leaves a client fewer.
TRIES = 200


def iid(rows: int, clients: int, seed: int) -> Tensor:
    """(rows,) int64 clients: every row at random, every client as many, or one more."""
    _enough(rows, clients)
    return torch.randperm(rows, generator=generator("iid", clients, seed)) % clients


def dirichlet(y: Tensor, clients: int, alpha: float, seed: int) -> Tensor:
    """(N,) int64 clients of rows with labels y: each class is shared out by its own draw from Dirichlet(alpha).

    The smaller alpha, the fewer classes and the more unequal the clients. Drawn anew until each has a few rows.
    """
    _enough(len(y), clients)
    if not alpha > 0:
        raise InputError(f"alpha is above 0, got {alpha}", hint="0.1 is very unequal, 100 nearly alike")
    for attempt in range(TRIES):
        rng = np.random.default_rng(seed_of("dirichlet", clients, alpha, seed, attempt))
        out = torch.empty(len(y), dtype=torch.int64)
        for c in y.unique().tolist():
            mine = (y == c).nonzero().flatten()
            ends = np.cumsum(rng.dirichlet([alpha] * clients))[:-1] * len(mine)
            order = torch.from_numpy(rng.permutation(len(mine)))
            for client, part in enumerate(mine[order].tensor_split(torch.from_numpy(ends.round().astype(np.int64)))):
                out[part] = client
        if int(torch.bincount(out, minlength=clients).min()) >= LEAST:
            return out
    raise InputError(
        f"{TRIES} draws of Dirichlet({alpha}) left some of {clients} clients fewer than {LEAST} of {len(y):,} rows",
        hint="fewer clients, more rows or a larger alpha",
    )


def by_column(values: Tensor) -> Tensor:
    """(N,) int64 clients 0, 1, ...: one for every value of a column, in the order of the values."""
    found: Tensor = values.unique(return_inverse=True)[1]
    return found


def _enough(rows: int, clients: int) -> None:
    if clients < 1 or rows < LEAST * clients:
        raise InputError(
            f"{clients} clients cannot share {rows:,} rows: each needs at least {LEAST}", hint="fewer clients"
        )
