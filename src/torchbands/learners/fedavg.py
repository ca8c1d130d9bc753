"""Federated training: clients train on their own rows, a server joins their updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Updates
from torchbands.core.hook import BatchHook, ClientHook, Hook, LocalTraining, Round, taking_part
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Progress, TrainingFacts
from torchbands.core.seeding import generator, seed_of
from torchbands.learners.mean import Mean
from torchbands.learners.sgd import SGD


@method("fedavg", paper="McMahan et al., AISTATS 2017, arXiv:1602.05629")
class FedAvg(Learner):
    """Rounds of local training and aggregation. Rows say whose they are by `meta["client"]`.

    Hooks act in malicious clients alone: `BatchHook` on their batches and losses, `ClientHook` on their training and on
    what they send. An update holds the change of the parameters and, apart from it, that of the running statistics:
    the two are never scaled together, for a scaled variance may be negative.
    """

    rounds: int = 10
    """Aggregations."""
    fraction: float = 1.0
    """Share of the clients that take part in a round, drawn by seed."""
    malicious: tuple[int, ...] = ()
    """Clients that the attacker owns."""
    local: Learner = SGD(epochs=1, batch=32, lr=0.05, schedule="constant")
    """How a client trains in one round."""
    aggregator: Aggregator = Mean()
    """How the server joins the updates."""

    def accepts(self) -> tuple[type[Hook], ...]:
        return (*(base for base in self.local.accepts() if base is BatchHook), ClientHook)

    def trusted_rows(self) -> int:
        return self.aggregator.clean_needed()

    def guarded_by(self, aggregator: Aggregator) -> Self:
        return self.but(aggregator=aggregator)

    def learn(
        self,
        model: Model,
        data: Data,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
    ) -> TrainingFacts:
        parts = _parts(data)
        rng, worker, memory = generator("fedavg", seed), model.clone(), Memory()
        server = self.aggregator.start(model.clone(), clean, seed=seed_of("server", seed))
        mine = data[torch.isin(data.meta["client"], torch.tensor(self.malicious, dtype=torch.int64))]
        attack = Colluders(self, hooks, generator("colluders", seed), seed)
        with taking_part(hooks, worker, mine, seed):
            for number in range(self.rounds):
                weights, buffers = weights_of(model), buffers_of(model)
                count = max(1, round(self.fraction * len(parts)))
                clients = [sorted(parts)[i] for i in torch.randperm(len(parts), generator=rng)[:count].sort().values]
                now = Round(number, self.rounds, weights, buffers, count, attack.rng)
                sent = attack.round(worker, {c: parts[c] for c in clients}, now)
                made = server.step(sent, weights.clone())
                memory.note(sent.clients, made)
                load_weights(model, weights + made.weights)
                load_buffers(model, buffers + made.buffers)
                if progress is not None:
                    progress(number + 1, self.rounds, "round")
        return memory.facts()


@dataclass
class Colluders:
    """The clients of a round: honest ones train as they are told, malicious ones let the hooks act."""

    learner: FedAvg
    hooks: Sequence[Hook]
    rng: torch.Generator
    seed: int

    def round(self, worker: Model, parts: Mapping[int, Data], now: Round) -> Updates:
        """Train every client of a round from the global model. (n, D) updates, in the order of `parts`."""
        weights, buffers = [], []
        for client, data in parts.items():
            load_weights(worker, now.weights)
            load_buffers(worker, now.buffers)
            self._train(worker, data, client, now)
            weights.append(weights_of(worker) - now.weights)
            buffers.append(buffers_of(worker) - now.buffers)
        clients, rows = torch.tensor(list(parts)), torch.tensor([len(data) for data in parts.values()])
        sent = Updates(torch.stack(weights), torch.stack(buffers), clients, rows)
        bad = torch.tensor([c in self.learner.malicious for c in parts])
        if bad.any():
            for hook in self.hooks:
                if isinstance(hook, ClientHook):
                    sent = sent.put(bad, hook.updates(sent.at(bad), now))
        return sent

    def _train(self, worker: Model, data: Data, client: int, now: Round) -> None:
        malicious = client in self.learner.malicious
        inside = tuple(h for h in self.hooks if isinstance(h, BatchHook)) if malicious else ()

        def train(rows: Data, more: tuple[BatchHook, ...]) -> None:
            seed = seed_of("client", self.seed, now.number, client)
            begun = [_Begun(hook) for hook in (*inside, *more)]
            self.learner.local.learn(worker, rows, hooks=begun, clean=None, seed=seed, progress=None)

        local = LocalTraining(worker, data, client, now, train)
        for hook in reversed(self.hooks) if malicious else ():
            if isinstance(hook, ClientHook):
                local = local.within(hook)
        local.run()


class _Begun(BatchHook):
    """A hook inside one client's local training: `begin` and `end` are the whole training's."""

    def __init__(self, hook: BatchHook) -> None:
        self.batch, self.loss, self.after_step = hook.batch, hook.loss, hook.after_step  # type: ignore[method-assign]


@dataclass
class Memory:
    """What a server thought of its clients, over all rounds: name -> client -> one value a round."""

    told: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def note(self, clients: Tensor, made: Aggregate) -> None:
        for name, values in (("suspicion", made.suspicion), ("kept", made.kept)):
            if values is not None:
                for client, value in zip(clients.tolist(), values.tolist(), strict=True):
                    self.told.setdefault(name, {}).setdefault(client, []).append(float(value))

    def facts(self) -> TrainingFacts:
        """For every client its mean suspicion, and the share of its rounds in which its update was kept; each only
        where the server says it."""
        out: dict[str, dict[str, float]] = {}
        for name, of in self.told.items():
            for client, values in sorted(of.items()):
                out.setdefault(str(client), {})[name] = round(sum(values) / len(values), 6)
        return {"clients": out} if out else {}


def _parts(data: Data) -> dict[int, Data]:
    if "client" not in data.meta:
        raise InputError("federated rows need meta['client'], (N,) int64", hint="Data(x, y, meta={'client': ...})")
    owner = data.meta["client"]
    return {int(c): data[owner == c] for c in owner.unique()}


def weights_of(model: Model) -> Tensor:
    """(D,) float32: every parameter of a model, in the module's order; running statistics are none."""
    return _flat(list(model.module.parameters()))


def load_weights(model: Model, weights: Tensor) -> None:
    """Write a (D,) vector from `weights_of` into a model."""
    _write(list(model.module.parameters()), weights)


def buffers_of(model: Model) -> Tensor:
    """(B,) float32: every running statistic of a model, in the module's order."""
    return _flat(_buffers(model))


def load_buffers(model: Model, buffers: Tensor) -> None:
    """Write a (B,) vector from `buffers_of` into a model."""
    _write(_buffers(model), buffers)


def _buffers(model: Model) -> list[Tensor]:
    return [b for b in model.module.buffers() if b.is_floating_point()]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().float().flatten() for t in tensors]) if tensors else torch.zeros(0)


def _write(tensors: Sequence[Tensor], values: Tensor) -> None:
    with torch.no_grad():
        for tensor, part in zip(tensors, values.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
