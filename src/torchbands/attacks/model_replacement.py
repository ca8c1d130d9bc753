"""Model replacement: malicious clients scale up their update so that it survives the server's averaging."""

from __future__ import annotations

from dataclasses import replace

from torchbands.attacks.federated import ClientAttack
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import ClientHook, Round
from torchbands.core.method import method
from torchbands.core.task import Task


@method("model-replacement", paper="Bagdasaryan et al., AISTATS 2020, arXiv:1807.00459", version=2)
class ModelReplacement(ClientAttack):
    """Scales up the malicious clients' poisoned updates: once with `shots=1`, in every round with 0.

    With the paper's factor, the number of clients that the server averages divided by that of the malicious ones, the
    mean of a converged federation is the attacker's model.

    Threat model: the attacker owns some clients, their rows and what they send; they know how many take part.

    Deviations from the paper: the colluders share the factor, so that several do not replace the model several times
    over; the server's learning rate is 1; no constraint on the update's size or on a detector (constrain-and-scale).
    """

    scale: float = 0.0
    """Factor applied to every malicious update; 0: clients in the round divided by malicious clients in it."""
    first: int = 0
    """First round (from 0) in which updates are scaled; the data are poisoned in every round of the attack."""
    shots: int = 0
    """Number of rounds in which updates are scaled; 0: every round from `first` on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 0 or self.first < 0 or self.shots < 0:
            raise InputError(f"{self.name}: scale, first and shots are at least 0")

    def acting(self, task: Task, seed: int) -> ClientHook:
        return Enlarging(self)


class Enlarging(ClientHook):
    """Scales the change of the parameters; running statistics are sent as they are."""

    def __init__(self, attack: ModelReplacement) -> None:
        self.attack = attack

    def updates(self, sent: Updates, round_: Round) -> Updates:
        attack = self.attack
        last = round_.rounds if attack.shots == 0 else attack.first + attack.shots
        if not attack.first <= round_.number < last:
            return sent
        return replace(sent, weights=(attack.scale or round_.clients / len(sent)) * sent.weights)
