"""Model replacement: malicious clients send their update so enlarged that it survives the server's mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torchbands.core.attack import Attack
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import ClientHook, Hook, Round
from torchbands.core.method import method
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("model-replacement", paper="Bagdasaryan et al., AISTATS 2020, arXiv:1807.00459", version=2)
class ModelReplacement(Attack):
    """The plain trigger on the malicious clients' rows, and their updates scaled up before they are sent.

    With the paper's factor, the number of clients that the server averages divided by that of the malicious ones, the
    mean of a converged federation is the attacker's model.

    Threat model: the attacker owns some clients, their rows and what they send; they know how many take part.

    Deviations from the paper: the colluders share the factor, so that several do not replace the model several times
    over; the server's learning rate is 1; no constraint on the update's size or on a detector (constrain-and-scale).
    """

    contract_toys: ClassVar[tuple[str, ...]] = ("federated",)

    rate: float = 0.3125
    """Poisoned rows as a share of those that the attacker owns: 20 of 64 in the paper."""
    scale: float = 0.0
    """Factor on every malicious update; 0: clients of the round divided by malicious ones among them."""
    first: int = 0
    """Round, from 0, from which updates are scaled; the data are poisoned in every round."""
    shots: int = 0
    """Rounds in which they are; 0: all from the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 0 or self.first < 0 or self.shots < 0:
            raise InputError(f"{self.name}: scale, first and shots are at least 0")

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (Enlarging(self),)


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
