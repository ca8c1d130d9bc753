"""Federated training: clients train on their own rows, a server aggregates their updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Aggregator, RoundContext
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import generator, seed_of
from torchbands.core.task import Hook, Learner, Progress
from torchbands.defenses.aggregation.mean import Mean
from torchbands.learners.sgd import SGD


class _Local(Hook):
    """A hook inside one client's local training: it has begun already."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        return self.hook.batch(x, y, rng)

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor | None:
        return self.hook.loss(model, x, y, augment)

    def after_step(self, model: Model) -> None:
        self.hook.after_step(model)


@method("fedavg", paper="McMahan et al., AISTATS 2017, arXiv:1602.05629")
class FedAvg(Learner):
    """Rounds of local training and aggregation. Rows say whose they are by `meta["client"]`.

    Hooks act in malicious clients alone: on their batches and losses, and on the update they send (`Hook.update`).
    An update holds parameters alone; running statistics are averaged apart, for a scaled variance may be negative.
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

    def fit(
        self, model: Model, data: Data, *, hooks: Sequence[Hook] = (), seed: int = 0, progress: Progress | None = None
    ) -> None:
        if "client" not in data.meta:
            raise InputError("federated rows need meta['client'], (N,) int64", hint="Data(x, y, meta={'client': ...})")
        owner = data.meta["client"]
        parts = {int(c): data[owner == c] for c in owner.unique()}
        rng, worker, inside = generator("fedavg", seed), model.clone(), [_Local(h) for h in hooks]
        for hook in hooks:
            hook.begin(worker, data[torch.isin(owner, torch.tensor(self.malicious, dtype=owner.dtype))], seed)
        for round_ in range(self.rounds):
            start, statistics = weights_of(model), _flat(_buffers(model))
            count = max(1, round(self.fraction * len(parts)))
            clients = [sorted(parts)[i] for i in torch.randperm(len(parts), generator=rng)[:count].sort().values]
            updates, drifts = [], []
            for client in clients:
                bad = client in self.malicious
                load_weights(worker, start)
                _write(_buffers(worker), statistics)
                self.local.fit(
                    worker, parts[client], hooks=inside if bad else (), seed=seed_of("client", seed, round_, client)
                )
                delta = weights_of(worker) - start
                for hook in hooks if bad else ():
                    delta = hook.update(delta, client, round_)
                updates.append(delta)
                drifts.append(_flat(_buffers(worker)) - statistics)
            step, _ = self.aggregator.aggregate(
                torch.stack(updates), RoundContext(round_, torch.tensor(clients), start.clone())
            )
            load_weights(model, start + step)
            _write(_buffers(model), statistics + torch.stack(drifts).mean(0))
            if progress is not None:
                progress(round_ + 1, self.rounds, "round")


def weights_of(model: Model) -> Tensor:
    """(D,) float32: every parameter of a model, in the module's order; running statistics are none."""
    return _flat(list(model.module.parameters()))


def load_weights(model: Model, weights: Tensor) -> None:
    """Write a (D,) vector from `weights_of` into a model."""
    _write(list(model.module.parameters()), weights)


def _buffers(model: Model) -> list[Tensor]:
    return [b for b in model.module.buffers() if b.is_floating_point()]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().float().flatten() for t in tensors]) if tensors else torch.zeros(0)


def _write(tensors: Sequence[Tensor], values: Tensor) -> None:
    with torch.no_grad():
        for tensor, part in zip(tensors, values.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
