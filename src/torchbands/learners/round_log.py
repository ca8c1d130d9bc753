"""What is told of every round of federated training: who sent what, what the server thought, what the model does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchbands.core.federated import Aggregate, Updates
from torchbands.core.recipe import TrainingFacts


@dataclass
class RoundLog:
    """Per round, lists that run alike: one value a client for what is told of clients, one a round for the rest.

    Attributes:
        told: what the server said of its clients: name -> client -> one value for each of its rounds.
        rounds: name -> one entry a round.
        excluded: round -> client -> why its update was not joined. looked: names of what a watch told.
    """

    told: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    rounds: dict[str, list[Any]] = field(default_factory=dict)
    excluded: dict[int, dict[int, str]] = field(default_factory=dict)
    looked: set[str] = field(default_factory=set)

    def sent(self, sent: Updates, seconds: Mapping[int, float]) -> None:
        """What the clients of a round sent, and how long each trained."""
        self._add("clients", sent.clients.tolist())
        self._add("norm", _rounded(sent.weights.norm(dim=1)))
        self._add("cosine", _rounded(cosine_to_others(sent.weights)))
        self._add("client_seconds", [round(seconds[c], 4) for c in sent.clients.tolist()])

    def joined(self, clients: Tensor, made: Aggregate | None, seconds: float) -> None:
        """What the server made of a round's clients; None where there were none."""
        values = {"suspicion": None, "kept": None} if made is None else {"suspicion": made.suspicion, "kept": made.kept}
        for name, of in values.items():
            told = None if of is None else _rounded(of)
            self._add(name, told)
            for client, value in zip(clients.tolist(), told or (), strict=told is not None):
                if value is not None:
                    self.told.setdefault(name, {}).setdefault(client, []).append(value)
        self._add("server_seconds", round(seconds, 4))

    def watched(self, number: int, seen: Mapping[str, float | None]) -> None:
        """What the model does after round `number`; nothing in rounds in which nobody looked."""
        self.looked |= set(seen)
        for name in sorted(self.looked):
            value = seen.get(name)
            row = self.rounds.setdefault(name, [None] * number)
            row.append(None if value is None else round(value, 6))

    def leave_out(self, number: int, client: int, why: str) -> None:
        self.excluded.setdefault(number, {})[client] = why

    def facts(self) -> TrainingFacts:
        """For every client its mean suspicion, and the share of its rounds in which its update was kept, each only
        where the server says it; and the rounds one by one, without what was never told."""
        out: dict[str, dict[str, float]] = {}
        for name, of in self.told.items():
            for client, values in sorted(of.items()):
                out.setdefault(str(client), {})[name] = round(sum(values) / len(values), 6)
        rounds = {k: v for k, v in self.rounds.items() if any(entry is not None for entry in v)}
        excluded = {str(n): {str(c): why for c, why in of.items()} for n, of in self.excluded.items()}
        return {"rounds": rounds, **({"clients": out} if out else {}), **({"excluded": excluded} if excluded else {})}

    def _add(self, name: str, value: Any) -> None:
        self.rounds.setdefault(name, []).append(value)


def cosine_to_others(weights: Tensor) -> Tensor:
    """(n,) cosine of each of (n, D) updates to the mean of the others; 0 for one alone. Its own size plays no part."""
    others = weights.sum(0, keepdim=True) - weights
    return torch.nn.functional.cosine_similarity(weights, others, dim=1)


def _rounded(values: Tensor) -> list[float | None]:
    """JSON knows no number that is not finite."""
    return [round(v, 6) if math.isfinite(v) else None for v in values.float().tolist()]
