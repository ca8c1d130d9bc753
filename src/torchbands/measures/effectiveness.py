"""Metrics of attacks and defenses: pure functions of predictions and scores."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from torchbands.core.effect import Effect, share
from torchbands.core.metric import Undefined, Value


def der(before: Effect, after: Effect) -> Value:
    """Defense effectiveness rating in [0, 1] (Zhu et al., 2023): .5 is doing nothing; losing accuracy subtracts."""
    if isinstance(before.asr, Undefined) or isinstance(after.asr, Undefined):
        return Undefined("there are no rows to trigger")
    if isinstance(before.ca, Undefined) or isinstance(after.ca, Undefined):
        return Undefined("there are no test rows")
    return (max(0.0, before.asr - after.asr) - max(0.0, before.ca - after.ca) + 1) / 2


def auroc(suspicious: Tensor, normal: Tensor) -> Value:
    """P(a suspicious row scores above a normal one), ties counting half."""
    if len(suspicious) == 0 or len(normal) == 0:
        return Undefined(f"needs rows of both kinds, got {len(suspicious)} and {len(normal)}")
    normal = normal.double().sort().values
    s = suspicious.double()
    below = torch.searchsorted(normal, s, right=False).double()
    upto = torch.searchsorted(normal, s, right=True).double()
    return float(((below + upto) / 2).mean() / len(normal))


def ties(suspicious: Tensor, normal: Tensor) -> Value:
    """Fraction of (suspicious, normal) pairs with equal scores, which count half in an AUROC."""
    if len(suspicious) == 0 or len(normal) == 0:
        return Undefined(f"needs rows of both kinds, got {len(suspicious)} and {len(normal)}")
    normal, s = normal.double().sort().values, suspicious.double()
    same = torch.searchsorted(normal, s, right=True) - torch.searchsorted(normal, s)
    return float(same.double().mean() / len(normal))


def tpr_at(suspicious: Tensor, normal: Tensor, fpr: float) -> Value:
    """Share of suspicious rows above the threshold that at most a share `fpr` of normal rows exceeds."""
    if len(suspicious) == 0 or len(normal) == 0:
        return Undefined(f"needs rows of both kinds, got {len(suspicious)} and {len(normal)}")
    if len(normal) * fpr < 1:
        return Undefined(f"{len(normal)} normal rows cannot show a false-alarm rate of {fpr:g}")
    order = normal.double().sort(descending=True).values
    threshold = order[math.floor(len(normal) * fpr)]
    return float((suspicious.double() > threshold).double().mean())


def auroc_interval(value: float, suspicious: int, normal: int, z: float = 1.96) -> tuple[float, float]:
    """95 % score interval of an AUROC from two counts of cases (Newcombe, 2006, method 5): honest at 0 and 1 too."""
    half = (suspicious + normal) / 2 - 1

    def outside(theta: float) -> float:
        spread = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
        return abs(theta - value) - z * math.sqrt(theta * (1 - theta) * spread / (suspicious * normal))

    def edge(inner: float, outer: float) -> float:
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if outside(middle) > 0 else (middle, outer)
        return (inner + outer) / 2

    return edge(value, 0.0), edge(value, 1.0)


def ranking(suspicious: Tensor, normal: Tensor) -> dict[str, Value]:
    """AUROC with its share of ties, and true positives at 1 % and 5 % false alarms, from scores and never from
    decisions."""
    return {
        "auroc": auroc(suspicious, normal),
        "ties": ties(suspicious, normal),
        "tpr_at_1": tpr_at(suspicious, normal, 0.01),
        "tpr_at_5": tpr_at(suspicious, normal, 0.05),
    }


def decisions(flagged: Tensor, truth: Tensor) -> dict[str, Value]:
    """Recall, false-alarm rate and precision of the published rule's own decisions."""
    return {
        "rule_recall": share(flagged[truth], "poisoned or triggered rows"),
        "rule_fpr": share(flagged[~truth], "normal rows"),
        "rule_precision": share(truth[flagged], "flagged rows"),
    }


def histogram(suspicious: Tensor, normal: Tensor, bins: int = 20) -> dict[str, list[float]]:
    """Histogram of both kinds over common bins, for the report."""
    both = torch.cat([suspicious, normal]).float()
    low, high = float(both.min()), float(both.max())
    high = high if high > low else low + 1.0
    edges = torch.linspace(low, high, bins + 1)
    return {
        "clean": torch.histc(normal.float(), bins, low, high).tolist(),
        "triggered": torch.histc(suspicious.float(), bins, low, high).tolist(),
        "edges": [round(e, 6) for e in edges.tolist()],
    }


def clients(facts: Mapping[str, Mapping[str, float]], malicious: Collection[int]) -> dict[str, Value]:
    """How well a federated server identified malicious clients, given for each its `suspicion`, `kept`, or both."""
    bad = torch.tensor([int(c) in malicious for c in facts], dtype=torch.bool)

    def told(name: str) -> Tensor | None:
        known = bool(facts) and all(name in f for f in facts.values())
        return torch.tensor([f[name] for f in facts.values()]) if known else None

    def mean(values: Tensor | None, which: Tensor, what: str) -> Value:
        if values is None:
            return Undefined("the server leaves no client out")
        return float(values[which].mean()) if which.any() else Undefined(f"no {what} client took part")

    suspicion, kept = told("suspicion"), told("kept")
    return {
        "client_auroc": Undefined("the server suspects no client")
        if suspicion is None
        else auroc(suspicion[bad], suspicion[~bad]),
        "malicious_kept": mean(kept, bad, "malicious"),
        "honest_kept": mean(kept, ~bad, "honest"),
    }
