"""The metrics by which each role of defense is judged, and what counts as strong or weak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchbands.core.metric import Interval


@dataclass(frozen=True)
class Role:
    """One role as a reader meets it.

    Attributes:
        headline: the metric in large figures; `benign` the one in the row without an attack.
        beside: metrics in small figures under it; `benign_beside` those in the row without an attack.
    """

    title: str
    asks: str
    headline: str
    beside: tuple[str, ...]
    benign: str
    benign_beside: tuple[str, ...] = ()
    lower_is_better: bool = False


_MENDS = ("asr_before", "ca", "ca_drop", "der")
ROLES: dict[str, Role] = {
    "input-detector": Role(
        "Input detectors",
        "Does this input carry a trigger?",
        "auroc",
        ("ties", "tpr_at_5", "rule_recall", "rule_fpr"),
        "rule_fpr",
        ("auroc",),
    ),
    "model-detector": Role(
        "Model detectors",
        "Does this model hold a backdoor?",
        "auroc",
        ("flagged", "target_hit"),
        "flagged",
    ),
    "data-filter": Role(
        "Data filters",
        "Which training rows were poisoned?",
        "auroc",
        ("ties", "tpr_at_5", "rule_recall", "rule_precision", "rule_fpr"),
        "rule_fpr",
    ),
    "training": Role(
        "Robust training",
        "Can a model be trained on this data without learning the backdoor?",
        "asr",
        _MENDS,
        "ca_drop",
        ("ca",),
        lower_is_better=True,
    ),
    "repair": Role(
        "Repairs",
        "Can the backdoor be removed from this model?",
        "asr",
        _MENDS,
        "ca_drop",
        ("ca",),
        lower_is_better=True,
    ),
    "aggregator": Role(
        "Robust aggregation",
        "Can a server aggregate client updates without learning the backdoor of malicious clients?",
        "asr",
        (*_MENDS, "client_auroc", "malicious_kept", "honest_kept"),
        "ca_drop",
        ("ca", "honest_kept"),
        lower_is_better=True,
    ),
}

#: Shades of the verdict table; the words are said beside the colour.
STRONG, PARTIAL, WEAK = "strong", "partial", "weak"
_AT = {STRONG: 0.8, PARTIAL: 0.4}
_BELOW_STRONG = 0.79

RULES = {
    "detectors": "AUROC: strong from 0.90, weak below 0.70.",
    "rule": "A detector is never strong if its own rule (or, without one, a threshold at 5 % false alarms) finds "
    "less than "
    "half of the poison, or raises more than 10 % false alarms; above 30 % it is weak.",
    "repairs": "Remaining attack success plus twice the accuracy lost: strong up to 20 %, weak above 60 %.",
    "benign": "Without an attack, false alarms (or twice the accuracy lost): strong up to 10 %, weak above 30 %.",
    "mean": "Shades follow the mean; an AUROC whose interval includes chance gets no shade unless it is weak. The mean "
    "and the worst attack of a detector are never shaded better than its cells.",
}


def quality(role: str, metrics: Mapping[str, Interval], benign: bool) -> float | None:
    """From 0 (useless) to 1 (all one could ask), by the means; None without a headline, or with too few models."""
    known = ROLES.get(role)
    name = None if known is None else known.benign if benign else known.headline
    if known is None or name is None or name not in metrics:
        return None
    value, low = metrics[name].mean, metrics[name].low
    if name == "auroc":
        if low is not None and low <= 0.5 and word(_unit(2 * value - 1)) != WEAK:
            return None
        return min(_unit(2 * value - 1), _most_by_rule(metrics))
    lost = max(0.0, metrics["ca_drop"].mean) if "ca_drop" in metrics else 0.0
    if benign:
        return _unit(1 - 2 * (2 * lost if name == "ca_drop" else value))
    return _unit(1 - value - 2 * lost)


def _most_by_rule(metrics: Mapping[str, Interval]) -> float:
    """The most that a ranking may be called where the method's own rule makes little of it: who uses the method gets
    its alarms, not its ranking."""
    found = next((metrics[n].mean for n in ("rule_recall", "flagged", "tpr_at_5") if n in metrics), 1.0)
    most = 1.0 if found >= 0.5 else _BELOW_STRONG
    if "rule_fpr" in metrics:
        most = min(most, _unit(1 - 2 * metrics["rule_fpr"].mean))
    return most


def word(value: float | None) -> str:
    """The shade of a quality as a word; empty for None."""
    if value is None:
        return ""
    return STRONG if value >= _AT[STRONG] - 1e-9 else PARTIAL if value >= _AT[PARTIAL] - 1e-9 else WEAK


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))
