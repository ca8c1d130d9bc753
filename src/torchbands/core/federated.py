"""What clients and servers of federated training tell each other, and what an aggregator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .data import Data
from .errors import InputError
from .method import Method
from .model import Model


@dataclass(frozen=True)
class Updates:
    """What n clients send in one round.

    Attributes:
        weights: (n, D) float32 changes of the parameters.
        buffers: (n, B) float32 changes of the running statistics; B is 0 where the network has none.
        clients: (n,) int64 ids. rows: (n,) int64 numbers of training rows, as the clients claim them.
    """

    weights: Tensor
    buffers: Tensor
    clients: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.clients)

    def at(self, which: Tensor) -> Updates:
        """Those of some clients: (m,) int64 positions or (n,) bool."""
        return Updates(self.weights[which], self.buffers[which], self.clients[which], self.rows[which])

    def put(self, which: Tensor, sent: Updates) -> Updates:
        """A copy in which some clients send something else. Raises InputError where the shapes differ."""
        before = self.at(which)
        for name in ("weights", "buffers", "clients", "rows"):
            given, wanted = getattr(sent, name), getattr(before, name)
            if given.shape != wanted.shape:
                raise InputError(
                    f"a client hook gave {name} of shape {tuple(given.shape)}, expected {tuple(wanted.shape)}",
                    hint="give back one update for every client: dataclasses.replace(sent, weights=...)",
                )
        if not torch.equal(sent.clients, before.clients):
            raise InputError("a client hook changed the clients' ids or their order")
        out = replace(self, weights=self.weights.clone(), buffers=self.buffers.clone(), rows=self.rows.clone())
        out.weights[which], out.buffers[which], out.rows[which] = sent.weights, sent.buffers, sent.rows
        return out


@dataclass(frozen=True)
class Aggregate:
    """What a server makes of a round.

    Attributes:
        weights: (D,) change of the global parameters. buffers: (B,) change of its running statistics.
        suspicion: (n,) float32, higher more suspicious; None where the method suspects nobody.
        kept: (n,) bool clients whose update had a part in the step; None: all.
    """

    weights: Tensor
    buffers: Tensor
    suspicion: Tensor | None = None
    kept: Tensor | None = None


class Server(ABC):
    """One server in one training. It may remember what clients sent in earlier rounds."""

    @abstractmethod
    def step(self, sent: Updates, weights: Tensor) -> Aggregate:
        """Join the updates of one round; `weights` are the (D,) global parameters that the clients started from."""


@dataclass(frozen=True, kw_only=True)
class Aggregator(Method):
    """Joins client updates safely. It holds settings alone; what must be remembered lives in the server it starts."""

    role: ClassVar[str] = "aggregator"
    #: True for one that defends against nobody: what defenses are compared with.
    baseline: ClassVar[bool] = False

    @abstractmethod
    def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
        """A server for one training.

        Args:
            model: an own copy of the untrained global model, for aggregators that train or ask it.
            clean: the server's own trusted rows, as many as `needs` asks for; None where it asks for none.
        """
