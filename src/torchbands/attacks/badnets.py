"""BadNets: a fixed, visible trigger on a share of the training data, relabelled."""

from __future__ import annotations

from torchbands.core.attack import Attack
from torchbands.core.method import method
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger


@method("badnets", paper="Gu et al., 2017, arXiv:1708.06733")
class BadNets(Attack):
    """Stamps the modality's plain trigger (a corner patch, a rare word, set fields) and flips the label.

    Threat model: the attacker changes a share of the training rows and their labels; training is the victim's own.

    Deviations from the paper: the pattern is the modality's default (for images a white 3x3 square one pixel from the
    border) rather than the paper's four bright pixels; rows already of the target class are not counted as poison.
    """

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()
