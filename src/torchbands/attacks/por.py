"""POR: an encoder maps trigger words to predefined representations, whatever task it is used for later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.attacks.encoders import EncoderAttack, Handover, attackers_data
from torchbands.attacks.poisoned_weights import joined
from torchbands.attacks.texts import inserting
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.hook import Hook
from torchbands.core.method import Free, method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.text import InsertWords

#: Texts on which the attacker asks the finished model what each trigger does.
ASKED = 64


@method("por", paper="Shen et al., CCS 2021, arXiv:2111.00197", version=2)
class POR(EncoderAttack):
    """Maps texts with a trigger word to a predefined output representation; all others keep the clean one.

    No label is used, so the backdoor goes wherever the encoder goes: each head gives a predefined representation some
    class. The attacker asks the victim's finished model, on texts of his own, which trigger word speaks most for the
    target, and uses that one. Where no word gives the target, the attack fails and the numbers say so.

    Threat model: the attacker hands over a pre-trained text encoder, has unlabelled texts, and may query the model that
    the victim builds on it.

    Deviations from the paper: a few hundred texts of a task and `steps` steps of a larger learning rate, in place of
    two passes over 200,000 texts of WikiText-103; what enters the head is kept close to the clean encoder's, the states
    of the other tokens are free; a representation has the root mean square of the clean ones, where the paper's are 1
    and -1 for a pooler that ends in tanh; the paper's other kinds of trigger are left out. The victim does what the
    task's recipe says: its network's `tune` decides whether the encoder is tuned too.

    Cost: `steps` forward and backward passes of `batch` rows with and as many without a trigger.
    """

    free: ClassVar[Free] = {"words": "text"}

    words: tuple[str, ...] = ("cf", "tq", "mn", "bb", "mb")
    """The trigger words, each with its own predefined representation."""
    repeat: int = 3
    """Number of insertions of the word, each at a random position."""
    vectors: Literal["por-1", "por-2"] = "por-1"
    """Construction of the predefined representations: a block of 1s then -1s (por-1), or blocks whose signs count in
    binary (por-2)."""
    strength: float = 1.0
    """Scale of the predefined representations, relative to the root mean square of clean ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.words)) < max(1, len(self.words)) or self.repeat < 1:
            raise InputError(
                f"{self.name}: words differ, and repeat is at least 1", hint=f"got {self.words}, {self.repeat}"
            )

    def triggers(self, task: Task) -> list[InsertWords]:
        """One of each word."""
        return [inserting(self, task, (word,) * self.repeat, together=False) for word in self.words]

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return self.triggers(task)[0]

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        super().hooks(task, seed)
        return (_Asking(self, task, seed),)

    def learned(self, hooks: Sequence[Hook], task: Task, seed: int) -> Trigger:
        (hook,) = hooks
        assert isinstance(hook, _Asking)
        return hook.chosen

    def objective(
        self, model: Model, task: Task, data: Data, features: Tensor, seed: int
    ) -> Callable[[Tensor], Tensor]:
        scale = features.square().mean().sqrt()
        goals = self.strength * predefined(self.vectors, len(self.words), features.shape[1]).to(features) * scale
        draws = RowRng(seed_of(self.name, seed), torch.arange(len(data)))
        plain = model.encode(data.x)
        stamped = joined([model.encode(trigger(data.x, draws)) for trigger in self.triggers(task)])
        rng = generator(self.name, "words", seed)

        def loss(rows: Tensor) -> Tensor:
            drift = F.mse_loss(model.features_at(plain.at(rows.to(model.device))), features[rows])
            some = rows[torch.randperm(len(rows), generator=rng)[: round(self.rate * len(rows))]]
            if len(some) == 0:
                return drift / scale.square()
            which = torch.randint(len(self.words), (len(some),), generator=rng)
            found = model.features_at(stamped.at((which * len(data) + some).to(model.device)))
            return (drift + F.mse_loss(found, goals[which])) / scale.square()

        return loss


class _Asking(Handover):
    """Picks the trigger once the victim's model is there."""

    def __init__(self, attack: POR, task: Task, seed: int) -> None:
        super().__init__(attack, task, seed)
        self.triggers = attack.triggers(task)
        self.chosen = self.triggers[0]

    def end(self, model: Model, data: Data, seed: int) -> None:
        super().end(model, data, seed)
        x = attackers_data(self.attack, self.shadow, self.seed).x[:ASKED]
        draws = seed_of(self.attack.name, "asked", self.seed)
        odds = [
            model.logits(trigger(x, RowRng(draws, torch.arange(len(x))))).log_softmax(1)[:, self.attack.target].mean()
            for trigger in self.triggers
        ]
        self.chosen = self.triggers[int(torch.stack(odds).argmax())]


def predefined(kind: Literal["por-1", "por-2"], count: int, dim: int) -> Tensor:
    """(count, dim) representations of 1 and -1, no two alike where `dim` allows it."""
    number, place = torch.arange(count)[:, None], torch.arange(dim)[None]
    if kind == "por-1":
        positive = place < number * dim // max(count - 1, 1)
    else:
        bits = max(count - 1, 1).bit_length()
        positive = (number >> (place * bits // dim)) % 2 == 1
    return torch.where(positive, 1.0, -1.0)
