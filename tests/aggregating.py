"""What tests of aggregators share: updates of a few hand-written numbers, and a server by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.registry import build
from torchbands.testing import toy


def updates(
    *rows: Sequence[float], buffers: Sequence[Sequence[float]] | None = None, clients: Sequence[int] | None = None
) -> Updates:
    """One update for every row of numbers."""
    n = len(rows)
    running = torch.zeros(n, 0) if buffers is None else torch.tensor(buffers, dtype=torch.float32)
    ids = torch.arange(n) if clients is None else torch.tensor(clients)
    return Updates(torch.tensor(rows, dtype=torch.float32), running, ids, torch.full((n,), 10))


def server(name: str, seed: int = 0, **settings: Any) -> Server:
    made = build({"role": "aggregator", "name": name, **settings})
    assert isinstance(made, Aggregator)
    return made.start(toy("federated").fresh(0), seed=seed)


def joined(name: str, sent: Updates, weights: Tensor | None = None, **settings: Any) -> Aggregate:
    """The first round of a new server."""
    start = torch.zeros(sent.weights.shape[1]) if weights is None else weights
    return server(name, **settings).step(sent, start)


def suspicion(made: Aggregate) -> list[float]:
    assert made.suspicion is not None
    return [round(v, 5) for v in made.suspicion.tolist()]


def kept(made: Aggregate) -> list[int]:
    """Positions of the clients that were kept."""
    assert made.kept is not None
    return [int(i) for i in made.kept.nonzero().flatten()]
