"""The result of a scan as plain data: alerts, two calibrated answers, the ledger of views, and what was not covered."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .alerts import LEVELS, RULES, Alert, Level
from .verdict import Verdict, exit_code, verdict_of, worst_of


@dataclass(frozen=True)
class Answer:
    """One calibrated question. p is None, with a reason, where it could not be asked.

    Attributes:
        p: conformal p-value: the share of reference models at least as extreme, the suspect counted among them.
        statistic: the combined score. references: number of reference models behind p.
        smallest: the smallest p that so many references can give.
    """

    p: float | None
    statistic: float | None = None
    references: int = 0
    reason: str = ""

    @property
    def smallest(self) -> float:
        return 1.0 / (self.references + 1)


@dataclass(frozen=True)
class LedgerLine:
    """What one view saw. z: how far above the references, in their standard units; None where it declined or has no
    references, with the reason."""

    view: str
    answer: Literal["trigger", "recipe", "evidence"]
    about: str
    score: float | None = None
    z: float | None = None
    p: float | None = None
    target: str | None = None
    source: str | None = None
    reason: str = ""
    seconds: float = 0.0
    forward_passes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What was scanned. kind: model, data or input."""

    kind: str
    path: str
    sha256: str = ""
    format: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """An HTML fragment made by a modality's `render` (already escaped), with a caption (not escaped)."""

    html: str
    caption: str


@dataclass(frozen=True)
class Outcome:
    """The object that the Python call returns and the command line prints.

    Attributes:
        alerts: what was found, worst first.
        trigger, recipe: the two calibrated answers; only `trigger` may say "backdoor".
        not_covered: what this profile did not look for.
        reasons: why the result is inconclusive, where it is.
        next_steps: what a reader may do now.
        repair: of a repair, what was tried and what came of it; the rest then tells of the scan after it, where there
            was one, or else of the one before.
        pictures: recovered trigger, a sample before and after, worst rows.
        sizes: of a model scan with references, how large a trigger each class needs, as `sizes.sizes_of` tells it.
        accepted: alerts that a baseline accepts: shown, but they decide nothing.
        cost: seconds, peak memory in MB, forward passes, clean samples.
        found: the recovered trigger with its classes, as objects (`target`, `source`, `trigger`); not in the JSON.
    """

    subject: Subject
    alerts: tuple[Alert, ...] = ()
    trigger: Answer | None = None
    recipe: Answer | None = None
    ledger: tuple[LedgerLine, ...] = ()
    source: str | None = None
    target: str | None = None
    pictures: tuple[Picture, ...] = ()
    sizes: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    repair: Mapping[str, Any] | None = None
    profile: str = "full"
    alpha: float = 0.05
    calibration: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    created: str = ""
    version: str = ""
    accepted: tuple[Alert, ...] = ()
    found: Any = field(default=None, compare=False, repr=False)

    @property
    def verdict(self) -> Verdict:
        """It follows from alerts and reasons, and never says that something is free of backdoors."""
        return verdict_of(self.alerts, self._open())

    def _open(self) -> tuple[str, ...]:
        """Why nothing could be concluded. What no method looked at is no pass, whether or not anybody says why."""
        return self.reasons or (() if self.methods else ("no method looked at it",))

    def sentence(self) -> str:
        """The verdict in one sentence, with its methods and false-alarm level, and no promise."""
        if self.repair is not None:
            return str(self.repair["sentence"])
        used = ", ".join(self.methods)
        level = f"at false-alarm level {self.alpha:g}"
        first = self.alerts[0].message if self.alerts else "see the ledger"
        if self.verdict == "indicated":
            return f"Indicators of a backdoor or of tampering: {first}"
        if self.verdict == "unusual":
            return f"Unusual, but no trigger: {first}"
        if self.verdict == "none":
            missing = "; ".join(self.not_covered) or "attacks that these methods cannot see"
            beyond = f" beyond the {len(self.accepted)} accepted by the baseline" if self.accepted else ""
            return f"No indicator found{beyond} by {used} {level}. Not covered: {missing}."
        return f"Inconclusive: {'; '.join(self._open())}."

    def _repr_html_(self) -> str:
        """What a notebook shows below a cell. It asks the value itself, though what renders lies a layer above."""
        made: str = importlib.import_module("torchbands.report.scan.notebook").render(self)
        return made

    def worst(self) -> Level | None:
        """The highest level of any alert."""
        return worst_of(self.alerts)

    def adding(self, alerts: Sequence[Alert]) -> Outcome:
        """With more alerts, such as those from opening the file; the verdict follows the worst of all."""
        return replace(self, alerts=tuple(sorted((*alerts, *self.alerts), key=_severity, reverse=True)))

    def accepting(self, known: frozenset[str]) -> Outcome:
        """With the alerts whose fingerprints are in a baseline set apart; the verdict follows what is left.

        Without a hash of what was scanned nothing is accepted: the fingerprint would fit any other model.
        """
        if not self.subject.sha256:
            return self
        gone = tuple(a for a in self.alerts if a.fingerprint(self.subject.sha256) in known)
        left = tuple(a for a in self.alerts if a not in gone)
        return replace(self, alerts=left, accepted=(*self.accepted, *gone))

    def exit_code(self, fail_on: Level = "medium") -> int:
        """1 for an alert at or above `fail_on`, 3 where there are reasons why nothing could be concluded, else 0."""
        return exit_code(self.alerts, self._open(), fail_on)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; numbers that are not finite become null."""
        told = asdict(replace(self, found=None))
        del told["found"]
        told = {"subject": told.pop("subject"), "verdict": self.verdict, **told, "sentence": self.sentence()}
        found: dict[str, Any] = json.loads(json.dumps(told, default=str), parse_constant=lambda _: None)
        for alert, line in zip((*self.alerts, *self.accepted), (*found["alerts"], *found["accepted"])):
            line["fingerprint"] = alert.fingerprint(self.subject.sha256)
        return found


def _severity(alert: Alert) -> tuple[int, float]:
    return LEVELS.index(alert.level), RULES[alert.rule].severity if alert.rule in RULES else 0.0
