"""What a scan says: alerts, two calibrated answers, the ledger behind them, and what was not covered. Plain data."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")

#: indicated: an alert at or above `medium`. unusual: only low alerts. none: nothing found by the methods that ran.
Verdict = Literal["indicated", "unusual", "none", "inconclusive"]

FOUND, TOOL_ERROR, INCONCLUSIVE = 1, 2, 3


@dataclass(frozen=True)
class Rule:
    """A kind of alert with a stable id. severity: SARIF's security-severity, 0 to 10. atlas: MITRE ATLAS technique."""

    id: str
    name: str
    about: str
    level: Level
    severity: float
    atlas: str


RULES: dict[str, Rule] = {
    rule.id: rule
    for rule in (
        Rule(
            "BD-TRG-01",
            "trigger-found",
            "A trigger search found an input change that reaches a class far more cheaply than in reference models.",
            "high",
            8.5,
            "AML.T0018.000",
        ),
        Rule(
            "BD-RCP-01",
            "unusual-recipe",
            "Parameters or behaviour differ from the reference models: unusual training data, or another recipe.",
            "low",
            3.0,
            "AML.T0020",
        ),
        Rule(
            "BD-FILE-01",
            "code-in-file",
            "The file holds instructions that run code when it is loaded.",
            "high",
            9.5,
            "AML.T0011.000",
        ),
        Rule(
            "BD-FILE-02",
            "malformed-file",
            "The file is not what its format promises: truncated, contradictory or oversized.",
            "medium",
            5.0,
            "AML.T0011.000",
        ),
        Rule(
            "BD-FILE-03",
            "unusual-file",
            "The file has something that a model file does not need, such as a link or a path that leaves its folder.",
            "medium",
            5.5,
            "AML.T0011.000",
        ),
        Rule(
            "BD-FILE-04",
            "non-finite-weights",
            "Weights that are NaN or infinite: the model cannot be judged.",
            "medium",
            4.0,
            "AML.T0018",
        ),
        Rule(
            "BD-DAT-01",
            "suspicious-samples",
            "A class of the training data holds samples that show what poison alone shows.",
            "medium",
            6.5,
            "AML.T0020",
        ),
        Rule(
            "BD-INP-01",
            "suspicious-inputs",
            "Inputs that a fitted detector finds further from ordinary ones than chance explains.",
            "medium",
            6.0,
            "AML.T0043.004",
        ),
    )
}


@dataclass(frozen=True)
class Alert:
    """One finding. `subject` is the class, file or sample it is about; `facts` are JSON-ready."""

    rule: str
    level: Level
    message: str
    subject: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self, sha256: str) -> str:
        """Stable over runs: hash of the scanned thing, the rule and what the alert is about."""
        told = f"{sha256}|{self.rule}|{self.subject}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(told).hexdigest()[:32]


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
        verdict: never says that something is free of backdoors.
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
    verdict: Verdict
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

    def sentence(self) -> str:
        """The verdict in one sentence, with its methods and false-alarm level, and no promise."""
        if self.repair is not None:
            return str(self.repair["sentence"])
        used = ", ".join(self.methods) or "no method"
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
        return f"Inconclusive: {'; '.join(self.reasons) or 'nothing could be judged'}."

    def _repr_html_(self) -> str:
        """What a notebook shows below a cell. It asks the value itself, though what renders lies a layer above."""
        made: str = importlib.import_module("torchbands.report.scan.notebook").render(self)
        return made

    def worst(self) -> Level | None:
        """The highest level of any alert."""
        return max((a.level for a in self.alerts), key=LEVELS.index, default=None)

    def adding(self, alerts: Sequence[Alert]) -> Outcome:
        """With more alerts, such as those from opening the file; the verdict follows the worst of all."""
        if not alerts:
            return self
        found = tuple(sorted((*alerts, *self.alerts), key=_severity, reverse=True))
        verdict: Verdict = self.verdict
        if any(a.level == "high" for a in found) or (verdict != "inconclusive" and found[0].level != "low"):
            verdict = "indicated"
        elif verdict == "none":
            verdict = "unusual"
        return replace(self, alerts=found, verdict=verdict)

    def accepting(self, known: frozenset[str]) -> Outcome:
        """With the alerts whose fingerprints are in a baseline set apart; the verdict follows what is left.

        Without a hash of what was scanned nothing is accepted: the fingerprint would fit any other model.
        """
        if not self.subject.sha256:
            return self
        gone = tuple(a for a in self.alerts if a.fingerprint(self.subject.sha256) in known)
        left = tuple(a for a in self.alerts if a not in gone)
        if not gone:
            return self
        verdict: Verdict = self.verdict
        if verdict in ("indicated", "unusual"):
            verdict = "none" if not left else "unusual" if all(a.level == "low" for a in left) else "indicated"
            if verdict == "none" and self.reasons:
                verdict = "inconclusive"
        return replace(self, alerts=left, accepted=(*self.accepted, *gone), verdict=verdict)

    def exit_code(self, fail_on: Level = "medium") -> int:
        """1 for an alert at or above `fail_on`, 3 where there are reasons why nothing could be concluded, else 0."""
        if any(LEVELS.index(a.level) >= LEVELS.index(fail_on) for a in self.alerts):
            return FOUND
        return INCONCLUSIVE if self.verdict == "inconclusive" or self.reasons else 0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; numbers that are not finite become null."""
        found: dict[str, Any] = json.loads(
            json.dumps(asdict(replace(self, found=None)), default=str), parse_constant=lambda _: None
        )
        del found["found"]
        found["sentence"] = self.sentence()
        for alert, line in zip((*self.alerts, *self.accepted), (*found["alerts"], *found["accepted"])):
            line["fingerprint"] = alert.fingerprint(self.subject.sha256)
        return found


def _severity(alert: Alert) -> tuple[int, float]:
    return LEVELS.index(alert.level), RULES[alert.rule].severity if alert.rule in RULES else 0.0
