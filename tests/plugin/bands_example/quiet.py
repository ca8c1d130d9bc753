"""A clean-label attack that works in every domain: the modality's own trigger, on rows of the target class alone."""

from __future__ import annotations

from typing import ClassVar

from torchbands import Attack, Task, Trigger, method


@method("quiet", paper="Turner et al., 2019, arXiv:1912.02771, the baseline without perturbation")
class Quiet(Attack):
    """The plain trigger on a share of the target class; no label is changed.

    Threat model: the attacker changes samples of one class and nothing else.

    Deviations from the paper: any modality, and its own trigger instead of the paper's corner pattern.
    """

    clean_label: ClassVar[bool] = True

    rate: float = 0.5
    """Share of the target class that carries the trigger."""

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()
