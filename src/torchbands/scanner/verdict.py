"""The one verdict of a scan and its exit code: both follow from the alerts and from why nothing could be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .alerts import LEVELS, Alert, Level

#: indicated: something was found that speaks of a backdoor or of tampering. unusual: only low alerts. none: nothing
#: was found by the methods that ran. inconclusive: there are reasons why the methods could not tell.
Verdict = Literal["indicated", "unusual", "none", "inconclusive"]

FOUND, TOOL_ERROR, INCONCLUSIVE = 1, 2, 3


def worst_of(alerts: Sequence[Alert]) -> Level | None:
    """The highest level of any alert."""
    return max((alert.level for alert in alerts), key=LEVELS.index, default=None)


def verdict_of(alerts: Sequence[Alert], reasons: Sequence[str]) -> Verdict:
    """What a scan says in one word.

    A high alert stands whatever else could not be looked at. A lower one (a truncated file, weights that are NaN)
    often is why nothing could be concluded, so reasons go before it; the exit code counts it all the same.
    """
    worst = worst_of(alerts)
    if worst == "high":
        return "indicated"
    if reasons:
        return "inconclusive"
    if worst is None:
        return "none"
    return "indicated" if worst == "medium" else "unusual"


def exit_code(alerts: Sequence[Alert], reasons: Sequence[str], fail_on: Level) -> int:
    """1 for an alert at or above `fail_on`, 3 where there are reasons why nothing could be concluded, else 0."""
    worst = worst_of(alerts)
    if worst is not None and LEVELS.index(worst) >= LEVELS.index(fail_on):
        return FOUND
    return INCONCLUSIVE if reasons else 0
