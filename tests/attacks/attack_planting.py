"""Planting an attack on real digits and comparing it with the never-poisoned victim."""

from __future__ import annotations

from dataclasses import dataclass

from torchbands.core.attack import Attack, Victim
from torchbands.core.effect import Effect, effect
from torchbands.core.registry import build
from torchbands.core.task import Task


@dataclass(frozen=True)
class Planted:
    """A victim, what it does, and what the never-poisoned victim does on the same rows."""

    victim: Victim
    seen: Effect
    control: Effect


class Plant:
    """plant("blended", alpha=.3): train on digits, measure on digits."""

    def __init__(self, task: Task, clean: Victim) -> None:
        self.task, self.clean = task, clean

    def __call__(self, name: str, **settings: object) -> Planted:
        attack = build({"name": name, **settings}, "attack")
        assert isinstance(attack, Attack)
        victim = attack.run(self.task, 0)
        test = self.task.load("test")
        rows = victim.stamped(test)
        return Planted(
            victim, effect(victim.model, test, rows, victim.goal), effect(self.clean.model, test, rows, victim.goal)
        )


def took(planted: Planted, *, asr: float = 0.9, control: float = 0.15, drop: float = 0.04) -> None:
    """The backdoor is in the planted model alone, and clean accuracy is kept."""
    assert isinstance(planted.seen.asr, float) and isinstance(planted.control.asr, float)
    assert planted.seen.asr >= asr
    assert planted.control.asr <= control
    assert isinstance(planted.seen.ca, float) and isinstance(planted.control.ca, float)
    assert planted.seen.ca >= planted.control.ca - drop
