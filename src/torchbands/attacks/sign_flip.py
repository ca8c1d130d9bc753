"""Sign flipping: malicious clients send the opposite of what they learned. It spoils the model and plants nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torchbands.attacks.federated import ByzantineAttack
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import ClientHook, Hook, Round
from torchbands.core.method import method
from torchbands.core.task import Task


@method("sign-flip", paper="Li et al., AAAI 2019, arXiv:1811.03761")
class SignFlip(ByzantineAttack):
    """No backdoor: sends negated updates, a control for how a defense handles purely destructive clients.

    Threat model: the attacker owns some clients and what they send.

    Deviations from the paper: updates are flipped, where the paper flips what workers of one step send; their size is
    kept unless `scale` says otherwise.
    """

    scale: float = 1.0
    """Factor on the negated update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale <= 0:
            raise InputError(f"{self.name}: scale is above 0, got {self.scale}")

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (Opposite(self.scale),)


class Opposite(ClientHook):
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def updates(self, sent: Updates, round_: Round) -> Updates:
        return replace(sent, weights=-self.scale * sent.weights)
