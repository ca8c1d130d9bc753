"""SIG: a sinusoid on images of the target class, labels untouched."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torchbands.attacks.images import image_shape
from torchbands.core.attack import Attack
from torchbands.core.errors import NotApplicable
from torchbands.core.method import method
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.triggers.additive import Sinusoid


@method("sig", paper="Barni et al., ICIP 2019, arXiv:1902.11237")
class SIG(Attack):
    """Adds a faint sinusoid to part of the target class and changes no label.

    Threat model: the attacker changes pixels of training images of one class, and nothing else.

    Deviations from the paper: none known. The paper varies the strengths and uses a stronger signal at test time than
    in training; the defaults are one such pair (20 and 40 of 255), on 30 % of the target class. Clean label: reported
    success at these settings is far from that of attacks that flip labels.

    Cost: one addition per poisoned row.
    """

    clean_label: ClassVar[bool] = True
    in_training: ClassVar[Literal["weaker"]] = "weaker"
    contract_settings: ClassVar[dict[str, Any]] = {"frequency": 2}  # a toy's images are 12 pixels wide

    rate: float = 0.3
    """Poisoned rows as a fraction of the target class."""
    delta: float = 20 / 255
    """Amplitude in training, as a fraction of the pixel range."""
    test_delta: float = 40 / 255
    """Amplitude at test time, as a fraction of the pixel range."""
    frequency: int = 6
    """Periods across the image."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        self._fits(task)
        return Sinusoid(delta=self.test_delta, frequency=self.frequency)

    def train_trigger(self, task: Task, seed: int) -> Trigger:
        self._fits(task)
        return Sinusoid(delta=self.delta, frequency=self.frequency)

    def _fits(self, task: Task) -> None:
        _, _, width = image_shape(self, task)
        if 2 * self.frequency % width == 0:  # every sample of the wave falls where it is zero
            nothing = f"a wave of {self.frequency} periods is zero in each of {width} columns"
            raise NotApplicable(f"{self.name}: {nothing}; set another frequency")
