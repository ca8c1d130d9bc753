"""Hooks: how an attack or a robust training intervenes in training.

There is one base for each thing that a hook may act on. A learner says which of them it accepts, and refuses the rest
with a reason, so that no hook is silently left uncalled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .data import Data
from .errors import NotApplicable
from .federated import Updates
from .model import Model


class Hook:
    """Base of all hooks. Subclass one or more of the bases below; every method is optional and changes nothing."""

    def begin(self, model: Model, data: Data, seed: int) -> None:
        """Before the first step, with the model that is trained and the rows that whoever has the hook trains on."""

    def end(self, model: Model, data: Data, seed: int) -> None:
        """After the last step, with what `begin` was given."""


class BatchHook(Hook):
    """Acts on batches, losses and steps. In federated training it acts in the malicious clients alone."""

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        """Change a raw batch, before augmentation."""
        return x, y

    def loss(self, model: Model, x: Any, y: Tensor, augment: Callable[[Any], Any]) -> Tensor | None:
        """A loss in place of cross-entropy on the augmented batch; None keeps that."""
        return None

    def after_step(self, model: Model) -> None:
        """After the optimiser's step."""


class WeightHook(Hook):
    """Writes the model's weights in `begin` or `end`: only for whoever runs the whole training."""


@dataclass(frozen=True)
class Round:
    """What the malicious clients know in one round.

    Attributes:
        number: from 0. rounds: how many there are in all.
        weights, buffers: (D,) and (B,) of the global model that the server sent.
        clients: how many take part in the round, honest ones among them.
        rng: the attack's own source of randomness.
    """

    number: int
    rounds: int
    weights: Tensor
    buffers: Tensor
    clients: int
    rng: torch.Generator


@dataclass(frozen=True)
class LocalTraining:
    """One malicious client's training in one round. `run` trains `model` in place, as an honest client would.

    Attributes:
        model: holds the global weights. data: the client's own rows. client: its id.
    """

    model: Model
    data: Data
    client: int
    round: Round
    _train: Callable[[Data, tuple[BatchHook, ...]], None]

    def run(self, data: Data | None = None, *hooks: BatchHook) -> None:
        """Train on the client's rows, or on others that the attack gives, with further hooks on batches and losses."""
        self._train(self.data if data is None else data, hooks)

    def within(self, hook: ClientHook) -> LocalTraining:
        """The same training as a hook has it: what the hook runs is this."""

        def train(rows: Data, more: tuple[BatchHook, ...]) -> None:
            hook.train(replace(self, data=rows, _train=lambda data, further: self._train(data, (*more, *further))))

        return replace(self, _train=train)


class ClientHook(Hook):
    """Acts in federated training, for all malicious clients together: they collude."""

    def train(self, local: LocalTraining) -> None:
        """One malicious client's training in one round: `local.run()`, unless the attack trains otherwise."""
        local.run()

    def updates(self, sent: Updates, round_: Round) -> Updates:
        """What the malicious clients of a round send, given all that they trained."""
        return sent


class EnvironmentHook(Hook):
    """Acts on environments."""

    def env(self, env: Any) -> Any:
        """Wrap one gymnasium environment of those that the learner runs side by side."""
        return env


#: Base -> what a hook of it acts on, as a refusal says it.
BASES: dict[type[Hook], str] = {
    BatchHook: "batches and losses",
    WeightHook: "the weights before or after training",
    ClientHook: "federated clients",
    EnvironmentHook: "environments",
}


class _Learner(Protocol):
    @property
    def name(self) -> str: ...
    def accepts(self) -> tuple[type[Hook], ...]: ...


def accepted(learner: _Learner, hooks: Sequence[Hook]) -> None:
    """Raise NotApplicable for a hook that acts on what this learner does not have."""
    for hook in hooks:
        for base, what in BASES.items():
            if isinstance(hook, base) and base not in learner.accepts():
                has = " and ".join(BASES[b] for b in learner.accepts()) or "nothing"
                raise NotApplicable(
                    f"{type(hook).__name__} acts on {what}, and the learner {learner.name} lets hooks act on {has}"
                )


@contextmanager
def taking_part(hooks: Sequence[Hook], model: Model, data: Data, seed: int) -> Iterator[None]:
    """Call `begin` of every hook before a training and `end` after it, with one model and one set of rows."""
    for hook in hooks:
        hook.begin(model, data, seed)
    yield
    for hook in hooks:
        hook.end(model, data, seed)
