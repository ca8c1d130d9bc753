"""The clients of a round: honest ones train as they are told, malicious ones let the hooks act."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import Diverged, InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import BatchHook, ClientHook, Hook, LocalTraining, Round
from torchbands.core.model import Model
from torchbands.core.recipe import Learner
from torchbands.core.seeding import seed_of
from torchbands.learners.vectors import buffers_of, load_buffers, load_weights, weights_of


@dataclass
class Clients:
    """Trains the clients of a round, one after the other, from the global model.

    Attributes:
        malicious: who belongs to the attacker. hooks: what they do, together.
        local, attacker: how an honest and how an attacking client trains.
        rng: the attack's own source of randomness.
        seconds, silent: of the last round: how long each client trained, and why some of the attacker's sent nothing.
    """

    malicious: frozenset[int]
    hooks: Sequence[Hook]
    local: Learner
    attacker: Learner
    rng: torch.Generator
    seed: int
    seconds: dict[int, float] = field(default_factory=dict)
    silent: dict[int, str] = field(default_factory=dict)

    def round(self, worker: Model, parts: Mapping[int, Data], now: Round, attacking: bool) -> Updates:
        """(n, D) updates in the order of `parts`, without those of clients that sent nothing."""
        self.seconds, self.silent = {}, {}
        weights, buffers = {}, {}
        for client, data in parts.items():
            load_weights(worker, now.weights)
            load_buffers(worker, now.buffers)
            started, acts = time.perf_counter(), attacking and client in self.malicious
            try:
                self._attack(worker, data, client, now) if acts else self._train(worker, data, client, now)
            except Diverged as error:
                if not acts:
                    raise
                self.silent[client] = str(error)
            self.seconds[client] = time.perf_counter() - started
            if client not in self.silent:
                weights[client] = weights_of(worker) - now.weights
                buffers[client] = buffers_of(worker) - now.buffers
        sent = Updates(
            _rows(weights, now.weights),
            _rows(buffers, now.buffers),
            torch.tensor(list(weights), dtype=torch.int64),
            torch.tensor([len(parts[c]) for c in weights], dtype=torch.int64),
        )
        bad = torch.tensor([attacking and c in self.malicious for c in weights], dtype=torch.bool)
        if bad.any():
            for hook in self.hooks:
                if isinstance(hook, ClientHook):
                    sent = sent.put(bad, hook.updates(sent.at(bad), now))
        return sent

    def _train(self, worker: Model, data: Data, client: int, now: Round) -> None:
        """As honest clients do. A malicious one that does not attack in this round withholds its poison."""
        if client in self.malicious and (poison := marked(data)).any():
            data = data[~poison]
            if len(data) == 0:
                raise InputError(
                    f"every row of client {client} is poisoned, and in round {now.number} it does not attack",
                    hint="a lower rate, or an attack in every round",
                )
        self.local.learn(worker, data, hooks=(), clean=None, seed=self._seed(client, now), progress=None)

    def _attack(self, worker: Model, data: Data, client: int, now: Round) -> None:
        inside = tuple(h for h in self.hooks if isinstance(h, BatchHook))

        def train(rows: Data, more: tuple[BatchHook, ...]) -> None:
            begun = [_Begun(hook) for hook in (*inside, *more)]
            seed = self._seed(client, now)
            self.attacker.learn(worker, rows, hooks=begun, clean=None, seed=seed, progress=None)

        local = LocalTraining(worker, data, client, now, train)
        for hook in reversed(self.hooks):
            if isinstance(hook, ClientHook):
                local = local.within(hook)
        local.run()

    def _seed(self, client: int, now: Round) -> int:
        return seed_of("client", self.seed, now.number, client)


def marked(data: Data) -> Tensor:
    """(N,) bool rows that an attack wrote on: poison, and cover."""
    out = torch.zeros(len(data), dtype=torch.bool) if data.poisoned is None else data.poisoned
    return out | data.meta["cover"] if "cover" in data.meta else out


def _rows(vectors: Mapping[int, Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(vectors.values())) if vectors else like.new_zeros((0, len(like)))


class _Begun(BatchHook):
    """A hook inside one client's local training: `begin` and `end` are the whole training's."""

    def __init__(self, hook: BatchHook) -> None:
        self.batch, self.loss, self.after_step = hook.batch, hook.loss, hook.after_step  # type: ignore[method-assign]
