"""No attack: a clean model, the control row of every table."""

from __future__ import annotations

from typing import ClassVar

from torchbands.core.attack import Attack
from torchbands.core.method import method
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("clean")
class Clean(Attack):
    """No attack: the control model for triggered inputs, and the benign model for a defense's false alarms."""

    backdoor: ClassVar[bool] = False

    rate: float = 0.0
    """Always 0: nothing is poisoned."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()
