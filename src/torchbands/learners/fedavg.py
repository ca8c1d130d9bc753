"""Federated training: clients train on their own rows, a server joins their updates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.hook import BatchHook, ClientHook, Hook, Round, taking_part
from torchbands.core.method import Free, method
from torchbands.core.model import Model
from torchbands.core.passes import Passes
from torchbands.core.recipe import Learner, Progress, TrainingFacts
from torchbands.core.rounds import PLAIN, Rounds
from torchbands.core.seeding import generator, seed_of
from torchbands.learners.checkpoint import load_checkpoint
from torchbands.learners.clients import Clients
from torchbands.learners.mean import Mean
from torchbands.learners.participation import Participation, at_fixed_rounds, at_random
from torchbands.learners.round_log import RoundLog
from torchbands.learners.round_state import RoundState, identity_of
from torchbands.learners.server_step import ServerOptimizer, ServerStep
from torchbands.learners.sgd import SGD
from torchbands.learners.vectors import buffers_of, load_buffers, load_weights, weights_of


@method("fedavg", paper="McMahan et al., AISTATS 2017, arXiv:1602.05629")
class FedAvg(Learner):
    """Federated averaging: rounds of local training and aggregation. `meta["client"]` says whose a row is.

    Hooks act in malicious clients alone, and in the attack window alone: `BatchHook` on their batches and losses,
    `ClientHook` on their training and on what they send. Outside of it they train as honest clients do, on those of
    their rows that carry no poison. An update holds the change of the parameters and, apart from it, that of the
    running statistics: the two are never scaled or compared together, for a scaled variance may be negative.
    """

    free: ClassVar[Free] = {"checkpoint": "file"}

    rounds: int = 10
    """Rounds of local training and aggregation."""
    fraction: float = 1.0
    """Fraction of the clients that take part in a round, drawn by seed."""
    participation: Participation = "random"
    """Which clients take part: a random draw; or fixed, as in Sun et al. (2019): all malicious clients in every
    `every`-th round and none in between, filled up with random honest clients."""
    every: int = 1
    """With fixed participation: rounds from one attack to the next, counted from `attack_start`."""
    malicious: tuple[int, ...] = ()
    """Ids of the clients that the attacker controls."""
    attack_start: int = 0
    """First round (from 0) in which malicious clients attack."""
    attack_stop: int = 0
    """Round from which they no longer attack; 0: they attack to the end."""
    local: Learner = SGD(epochs=1, batch=32, lr=0.05, schedule="constant")
    """Local training of a client in one round."""
    attacker: Learner | None = None
    """Local training of a malicious client in a round in which it attacks; None: the same as `local`."""
    aggregator: Aggregator = Mean()
    """How the server aggregates the updates."""
    server: ServerOptimizer = "sgd"
    """Server optimiser: add the aggregated update (sgd), or treat it as a gradient (Reddi et al., 2021)."""
    server_lr: float = 1.0
    """Learning rate of the server."""
    server_betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the server's momentum and of Adam's second moment."""
    server_tau: float = 1e-3
    """Lower bound on the denominator of the server's Adam (tau in the paper)."""
    checkpoint: str = ""
    """A .safetensors file of weights to start from, such as a victim's model.safetensors."""
    watch: int = 0
    """Measure accuracy and attack success every this many rounds; 0: never."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.every < 1 or self.watch < 0 or not 0 < self.fraction <= 1:
            raise InputError("fedavg: rounds and every are at least 1, watch at least 0, fraction is in (0, 1]")
        if self.attack_start < 0 or self.attack_stop < 0 or 0 < self.attack_stop <= self.attack_start:
            raise InputError(
                f"fedavg: the attack lasts from round {self.attack_start} to before round {self.attack_stop}: no round",
                hint="attack_stop=0 means to the end",
            )
        if self.server_lr <= 0 or self.server_tau <= 0 or not all(0 <= b < 1 for b in self.server_betas):
            raise InputError("fedavg: server_lr and server_tau are above 0, server_betas in [0, 1)")

    def accepts(self) -> tuple[type[Hook], ...]:
        local = self.local if self.attacker is None else self.attacker
        return (*(base for base in local.accepts() if base is BatchHook), ClientHook)

    def trusted_rows(self) -> int:
        return self.aggregator.clean_needed()

    def guarded_by(self, aggregator: Aggregator) -> Self:
        return self.but(aggregator=aggregator)

    def attacks_in(self, number: int) -> bool:
        """Whether malicious clients attack in this round, if they take part in it."""
        return self.attack_start <= number < (self.attack_stop or self.rounds)

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
        return self.learn_in_rounds(model, data, hooks=hooks, clean=clean, seed=seed, progress=progress, rounds=PLAIN)

    def learn_in_rounds(
        self,
        model: Model,
        source: Data,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
        rounds: Rounds,
    ) -> TrainingFacts:
        parts = _parts(source)
        facts = load_checkpoint(self.checkpoint, model) if self.checkpoint else {}
        identity = "" if rounds.folder is None else identity_of(self, model, source, hooks, seed)
        rng, worker, log = generator("fedavg", seed), model.clone(), RoundLog()
        server = self.aggregator.start(model.clone(), clean, seed=seed_of("server", seed))
        step = ServerStep(self.server, self.server_lr, self.server_betas, self.server_tau)
        mine = source[torch.isin(source.meta["client"], torch.tensor(self.malicious, dtype=torch.int64))]
        attacker = self.local if self.attacker is None else self.attacker
        clients = Clients(frozenset(self.malicious), hooks, self.local, attacker, generator("colluders", seed), seed)
        with taking_part(hooks, worker, mine, seed):
            changing = {"model": model, "rng": rng, "server": server, "step": step, "log": log}
            changing |= {"attack rng": clients.rng, "hooks": list(hooks)}
            state = RoundState(rounds.folder, identity, changing)
            for number in range(state.load(), self.rounds):
                here = self._taking_part(sorted(parts), number, rng)
                now = Round(number, self.rounds, weights_of(model), buffers_of(model), len(here), clients.rng)
                sent = clients.round(worker, {c: parts[c] for c in here}, now, self.attacks_in(number))
                for client, why in clients.silent.items():
                    log.leave_out(number, client, why)
                log.sent(sent, clients.seconds)
                made = _joined(server, sent, now, log)
                if made is not None:
                    load_weights(model, now.weights + step(made.weights))
                    load_buffers(model, now.buffers + made.buffers)
                seen = self._watched(model, number, rounds, log)
                state.save(number + 1)
                if progress is not None:
                    progress(number + 1, self.rounds, f"round{seen}")
        return {**facts, **log.facts()}

    def _taking_part(self, clients: Sequence[int], number: int, rng: torch.Generator) -> list[int]:
        count = max(1, round(self.fraction * len(clients)))
        if self.participation == "random":
            return at_random(clients, count, rng)
        due = self.attacks_in(number) and (number - self.attack_start) % self.every == 0
        return at_fixed_rounds(clients, self.malicious, count, due, rng)

    def _watched(self, model: Model, number: int, rounds: Rounds, log: RoundLog) -> str:
        """Note what the model does, where it is time to look, and say it in words."""
        if rounds.watch is None or self.watch == 0:
            return ""
        if (number + 1) % self.watch and number + 1 < self.rounds:
            log.watched(number, {})
            return ""
        copy = model.clone()
        copy.passes = Passes()  # whoever looks is not charged to the training
        seen = rounds.watch(copy)
        log.watched(number, seen)
        return "".join(f", {name} {value:.2f}" for name, value in seen.items() if value is not None)


def _joined(server: Server, sent: Updates, now: Round, log: RoundLog) -> Aggregate | None:
    """What the server makes of a round; None where no client sent anything."""
    started = time.perf_counter()
    made = server.step(sent, now.weights.clone()) if len(sent) else None
    log.joined(sent.clients, made, time.perf_counter() - started)
    if made is not None and made.excluded is not None:
        for client in sent.clients[made.excluded].tolist():
            log.leave_out(now.number, client, "the update holds values that are not finite")
    return made


def _parts(data: Data) -> dict[int, Data]:
    if "client" not in data.meta:
        raise InputError("federated rows need meta['client'], (N,) int64", hint="Data(x, y, meta={'client': ...})")
    owner: Tensor = data.meta["client"]
    return {int(c): data[owner == c] for c in owner.unique()}
