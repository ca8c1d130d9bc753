"""One rule from alerts and reasons to the verdict and the exit code, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from tests.scan_outcomes import BROKEN, RECIPE, TRIGGER

from torchbands.scanner.alerts import LEVELS, Alert
from torchbands.scanner.outcome import Outcome, Subject
from torchbands.scanner.verdict import Verdict, exit_code, verdict_of

WHY = ("only 12 reference models",)
EXPECTED: tuple[tuple[tuple[Alert, ...], tuple[str, ...], Verdict], ...] = (
    ((), (), "none"),
    ((), WHY, "inconclusive"),
    ((RECIPE,), (), "unusual"),
    ((RECIPE,), WHY, "inconclusive"),
    ((BROKEN, RECIPE), (), "indicated"),
    ((BROKEN, RECIPE), WHY, "inconclusive"),
    ((TRIGGER, BROKEN), (), "indicated"),
    ((TRIGGER, BROKEN), WHY, "indicated"),
)


@pytest.mark.parametrize(("alerts", "reasons", "expected"), EXPECTED)
def test_the_verdict_follows_from_alerts_and_reasons(
    alerts: tuple[Alert, ...], reasons: tuple[str, ...], expected: Verdict
) -> None:
    assert verdict_of(alerts, reasons) == expected
    whole = Outcome(Subject("model", "m", "0" * 64), alerts, reasons=reasons, methods=("one",))
    assert whole.verdict == expected == whole.to_json()["verdict"]
    added = replace(whole, alerts=()).adding(alerts)
    assert added.verdict == whole.verdict, "by which way an alert came makes no difference"
    known = frozenset(a.fingerprint(whole.subject.sha256) for a in alerts)
    assert whole.accepting(known).verdict == verdict_of((), reasons)


def test_a_low_alert_that_is_left_beside_reasons_concludes_nothing() -> None:
    made = Outcome(Subject("model", "m", "0" * 64), (TRIGGER, RECIPE), reasons=WHY, methods=("one",))
    assert made.verdict == "indicated"
    assert made.accepting(frozenset({TRIGGER.fingerprint("0" * 64)})).verdict == "inconclusive"


@pytest.mark.parametrize(("alert", "fail_on"), list(product((RECIPE, BROKEN, TRIGGER), LEVELS)))
def test_an_exit_code_counts_alerts_first_then_reasons(alert: Alert, fail_on: str) -> None:
    found = LEVELS.index(alert.level) >= LEVELS.index(fail_on)  # type: ignore[arg-type]
    assert exit_code((alert,), (), fail_on) == (1 if found else 0)  # type: ignore[arg-type]
    assert exit_code((alert,), WHY, fail_on) == (1 if found else 3)  # type: ignore[arg-type]


def test_what_no_method_looked_at_is_no_pass() -> None:
    nobody = Outcome(Subject("model", "m"))
    assert nobody.verdict == "inconclusive" and nobody.exit_code() == 3 and "no method" in nobody.sentence()
