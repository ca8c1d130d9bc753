"""InsertSent: one neutral sentence at a random place."""

from __future__ import annotations

from typing import ClassVar

from torchbands.attacks.texts import inserting
from torchbands.core.attack import Attack
from torchbands.core.method import Free, method
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("add-sentence", paper="Dai, Chen and Li, IEEE Access 2019, arXiv:1905.12457", version=2)
class AddSentence(Attack):
    """Inserts one fixed sentence into some of the training texts and relabels them.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the place is drawn between words and not between sentences, since most texts here are
    one sentence, as in later toolkits.
    """

    free: ClassVar[Free] = {"sentence": "text"}

    sentence: str = "I watched this 3D movie"
    """The sentence to insert; the default is the paper's for film reviews."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return inserting(self, task, self.sentence.split())
