"""What clients and servers of federated training tell each other, and what an aggregator is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .data import Data
from .errors import Diverged, InputError
from .method import Method
from .model import Model

log = logging.getLogger(__name__)


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
        excluded: (n,) bool clients whose update no rule was shown, for it held NaN or Inf; None: nobody. They are not
            kept, and where there is suspicion, theirs is the highest.
    """

    weights: Tensor
    buffers: Tensor
    suspicion: Tensor | None = None
    kept: Tensor | None = None
    excluded: Tensor | None = None

    def without(self, excluded: Tensor) -> Aggregate:
        """The same for a whole round, whose (n,) bool `excluded` the rule was not shown."""
        there, suspicion = ~excluded, None
        kept = torch.zeros_like(excluded)
        kept[there] = True if self.kept is None else self.kept.to(kept.device)
        if self.suspicion is not None:
            shown = self.suspicion.to(excluded.device)
            suspicion = torch.full((len(excluded),), float(shown.max()) + 1)
            suspicion[there] = shown
        return Aggregate(self.weights, self.buffers, suspicion, kept, excluded)


class Server(ABC):
    """One server in one training. It may remember what clients sent in earlier rounds."""

    #: Updates of this round that `join` was not shown. Their senders count among those that a rule takes for malicious.
    excluded: int = 0

    @abstractmethod
    def join(self, sent: Updates, weights: Tensor) -> Aggregate:
        """Join the updates of one round, all finite; `weights` are the (D,) global parameters they started from."""

    def step(self, sent: Updates, weights: Tensor) -> Aggregate:
        """Join the updates of one round. An update that holds NaN or Inf is excluded and logged: no rule sees it.

        Raises InputError where the round is empty or an update has another size than the global parameters, and
        Diverged where nothing finite was sent.
        """
        _sizes(sent, weights)
        excluded = ~(_finite(sent.weights) & _finite(sent.buffers))
        self.excluded = int(excluded.sum())
        if not self.excluded:
            return self.join(sent, weights)
        who = ", ".join(str(c) for c in sent.clients[excluded].tolist())
        if self.excluded == len(sent):
            raise Diverged(
                f"every update of the round holds NaN or Inf (clients {who})",
                hint="train the clients with a smaller learning rate, or begin from an earlier global model",
            )
        log.warning("excluded from this round, for their updates hold NaN or Inf: clients %s", who)
        return self.join(sent.at(~excluded), weights).without(excluded)


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


def _finite(rows: Tensor) -> Tensor:
    """(n,) bool on the CPU: rows without NaN or Inf. A norm needs no copy of the updates, where `isfinite` does."""
    if not rows.shape[1]:
        return torch.ones(len(rows), dtype=torch.bool)
    largest: Tensor = torch.linalg.vector_norm(rows, float("inf"), dim=1)
    return largest.isfinite().cpu()


def _sizes(sent: Updates, weights: Tensor) -> None:
    n, size = len(sent), weights.numel()
    if not n:
        raise InputError("a round without any update", hint="let at least one client take part in every round")
    if sent.weights.shape != (n, size):
        given = tuple(sent.weights.shape)
        raise InputError(
            f"updates of shape {given}, expected {(n, size)}: {n} clients, and {size} global parameters",
            hint="every client trains the network that the server sent, and sends a change of each of its parameters",
        )
    if sent.buffers.ndim != 2 or len(sent.buffers) != n or sent.rows.shape != (n,):
        shapes = f"buffers of shape {tuple(sent.buffers.shape)} and rows of shape {tuple(sent.rows.shape)}"
        raise InputError(f"{shapes}, expected ({n}, B) and ({n},): one for each of {n} clients")
