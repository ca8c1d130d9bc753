"""The findings that a scan may raise: every kind by its stable id, and how grave it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")


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
