"""A little is enough: colluders send their mean, moved as far as honest clients still differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from torchbands.attacks.federated import ByzantineAttack
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import ClientHook, Hook, Round
from torchbands.core.method import method
from torchbands.core.task import Task


@method("alie", paper="Baruch, Baruch and Goldberg, NeurIPS 2019, arXiv:1902.06156")
class ALIE(ByzantineAttack):
    """No backdoor: colluders send the mean of their updates minus z standard deviations per coordinate.

    z is as large as still lets enough honest clients lie farther out than the colluders, for robust rules to keep them.

    Threat model: the attacker owns some clients and what they send; they know how many take part.

    Deviations from the paper: its variant that plants a backdoor is not here. A single malicious client has no spread
    to hide in, and sends what it learned.
    """

    z: float = 0.0
    """Number of standard deviations; 0: the paper's, from the numbers of clients and of malicious clients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.z < 0:
            raise InputError(f"{self.name}: z is at least 0, got {self.z}")

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (Shifted(self.z),)


def largest_z(clients: int, malicious: int) -> float:
    """The paper's z, from the share of honest clients that need not lie beyond; 0 where the colluders need nobody."""
    honest = clients - malicious
    supporters = clients // 2 + 1 - malicious
    share = (honest - supporters) / honest if honest else 0.0
    return max(NormalDist().inv_cdf(share), 0.0) if 0 < share < 1 else 0.0


class Shifted(ClientHook):
    def __init__(self, z: float) -> None:
        self.z = z

    def updates(self, sent: Updates, round_: Round) -> Updates:
        z = self.z or largest_z(round_.clients, len(sent))
        shifted = sent.weights.mean(0) - z * sent.weights.std(0, correction=0)
        return replace(sent, weights=shifted.expand_as(sent.weights).clone())
