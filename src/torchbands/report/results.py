"""The results of a benchmark as plain typed values, from which every report format is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchbands.core.metric import Interval

#: What a cell of the verdict table may be.
STATES = ("done", "invalid", "not-applicable", "failed", "missing")


@dataclass(frozen=True)
class Sample:
    """One row before and after the trigger. The three pictures are HTML fragments."""

    original: str
    triggered: str
    difference: str
    label: str
    becomes: str


@dataclass(frozen=True)
class Histogram:
    """Counts of suspicion scores in common bins; `edges` has one value more than the counts."""

    clean: tuple[float, ...]
    triggered: tuple[float, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """One defense against one attack, over seeds.

    Attributes:
        state: one of `STATES`. "invalid": it ran, but the attack did not take, so the numbers prove nothing.
        seeds: the seeds behind `metrics`.
        metrics: means over seeds, by the keys of `terms.TERMS`.
        undefined: why a metric has no value.
        reason: why there is no result, or what went wrong on some of the seeds.
        quality: how good the headline is, from 0 to 1; None where there is nothing to judge.
        recovered, true: HTML fragments of the trigger a method found and of the one that was planted.
    """

    attack: str
    defense: str
    role: str
    state: str
    seeds: tuple[int, ...] = ()
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    quality: float | None = None
    cost: Mapping[str, Interval] = field(default_factory=dict)
    histogram: Histogram | None = None
    recovered: str = ""
    true: str = ""


@dataclass(frozen=True)
class Attack:
    """One attack on one task, over seeds. `benign` is the row without an attack.

    Attributes:
        state: as of a cell; "invalid" where no seed reached the floor.
        valid: how many of the victims count; None for the benign row.
        stealth: axis ("input", "feature", "parameter") to metric to mean.
        made_with: what its numbers depend on besides settings, where that is not the same in all rows of the store.
        unreproduced: why its numbers stay far from its paper's; empty where nothing of the kind is known.
    """

    label: str
    name: str
    benign: bool
    state: str
    seeds: tuple[int, ...]
    valid: int | None
    trained: int
    reason: str = ""
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)
    stealth: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    cost: Mapping[str, Interval] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    trigger: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)
    unreproduced: str = ""


@dataclass(frozen=True)
class Defense:
    """One defense over all valid attacks of a task.

    Attributes:
        mean: of the headline over attacks, with its interval over seeds (for model detectors: over models).
        worst: the attack it does worst on, and the headline there.
        judged: the attacks behind both. A run that failed is in them as the worst possible value.
        failed: how many runs count so. unasked: attacks that are left out: declined, not run, or without a value.
        about: what it was made of, where its label does not say.
        made_with, unreproduced: as of an attack.
    """

    label: str
    name: str
    role: str
    mean: Interval | None
    worst: tuple[str, Interval] | None
    judged: tuple[str, ...] = ()
    failed: int = 0
    unasked: tuple[str, ...] = ()
    about: str = ""
    cost: Mapping[str, Interval] = field(default_factory=dict)
    made_with: Mapping[str, str] = field(default_factory=dict)
    unreproduced: str = ""


@dataclass(frozen=True)
class TaskResults:
    """Everything about one task. The benign attack comes last."""

    name: str
    label: str
    attacks: tuple[Attack, ...]
    defenses: tuple[Defense, ...]
    cells: tuple[Cell, ...]

    def cell(self, attack: Attack, defense: Defense) -> Cell:
        """The cell of an attack and a defense; a "missing" one where nothing was run."""
        for cell in self.cells:
            if (cell.attack, cell.defense, cell.role) == (attack.label, defense.label, defense.role):
                return cell
        reason = f"the victim was not made: {attack.reason}" if attack.state == "failed" else "not run yet"
        return Cell(attack.label, defense.label, defense.role, "missing", reason=reason)

    def of_role(self, role: str) -> tuple[Defense, ...]:
        """The defenses of one role."""
        return tuple(d for d in self.defenses if d.role == role)

    def roles(self) -> tuple[str, ...]:
        """The roles that have a defense here, in reading order."""
        from .roles import ROLES

        return tuple(r for r in ROLES if self.of_role(r))


@dataclass(frozen=True)
class Results:
    """A whole store.

    Attributes:
        versions: what all numbers were made with, as far as it is the same for all; the others are in `mixed`, and
            every row says its own.
        harness: the version of what ran the cells; 0 where the store does not say.
        problems: files that could not be read. missing: cells of the grid not run yet.
        foreign: records of the same methods left out, for they have other data, another device or another harness.
    """

    question: str
    command: str
    preset: str | None
    created: str
    versions: Mapping[str, str]
    grid: Mapping[str, Any]
    tasks: tuple[TaskResults, ...]
    problems: tuple[str, ...] = ()
    missing: int = 0
    foreign: int = 0
    mixed: tuple[str, ...] = ()
    harness: int = 0
