"""JUnit XML: one test case for every rule that was asked and every view, for build servers."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from torchbands.scanner.alerts import LEVELS, RULES, Level
from torchbands.scanner.outcome import Outcome

from .formatting import number, plain, remarks


def render(outcome: Outcome, fail_on: Level, error: str) -> str:
    """Failures are alerts at or above `fail_on`; an inconclusive scan is an error; what declined is skipped."""
    name = f"torchbands.{plain(outcome.subject.kind, 20)}"
    suite = Element("testsuite", name=f"{name} {plain(outcome.subject.path)}")
    if outcome.created:
        suite.set("timestamp", plain(outcome.created, 40))
    for rule in _asked(outcome):
        _rule(suite, f"{name}.rules", rule, outcome, fail_on)
    for line in outcome.ledger:
        case = _case(suite, f"{name}.views", f"{line.view} ({line.answer})", line.seconds)
        if line.score is None:
            SubElement(case, "skipped", message=plain(line.reason) or "no score")
        else:
            said = f"score {number(line.score)}, z {number(line.z)}, p {number(line.p)}; the verdict is by rule"
            SubElement(case, "system-out").text = f"{said}. {plain(line.reason)}".strip()
    _conclusion(suite, name, outcome, error)
    if told := remarks(outcome):
        SubElement(_case(suite, name, "how it was read"), "system-out").text = "\n".join(told)
    counts = {kind: len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error", "skipped")}
    totals = {"tests": len(suite.findall("testcase")), "failures": counts["failure"], "errors": counts["error"]}
    totals |= {"skipped": counts["skipped"]}
    for key, value in totals.items():
        suite.set(key, str(value))
    suite.set("time", f"{float(outcome.cost.get('seconds', 0.0)):.3f}")
    suites = Element("testsuites", {key: str(value) for key, value in totals.items()})
    suites.append(suite)
    indent(suites, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suites, encoding="unicode") + "\n"


def _asked(outcome: Outcome) -> list[str]:
    """The rules that this kind of scan looks into, and any other that was broken."""
    of = {"model": ("BD-TRG", "BD-RCP", "BD-FILE"), "data": ("BD-DAT",), "input": ("BD-INP",)}
    starts = of.get(outcome.subject.kind, ())
    broken = {a.rule for a in (*outcome.alerts, *outcome.accepted)}
    return [r for r in RULES if r.startswith(starts) or r in broken] + sorted(broken - set(RULES))


def _rule(suite: Element, group: str, rule: str, outcome: Outcome, fail_on: Level) -> None:
    known = RULES.get(rule)
    case = _case(suite, group, f"{rule} {known.name}" if known else rule)
    alerts = [a for a in outcome.alerts if a.rule == rule]
    failing = [a for a in alerts if LEVELS.index(a.level) >= LEVELS.index(fail_on)]
    for alert in failing:
        made = SubElement(case, "failure", message=plain(alert.message), type=f"{rule} {alert.level}")
        lines = [plain(alert.message), f"about: {plain(alert.subject)}" if alert.subject else ""]
        lines += [f"rule: {known.about} MITRE ATLAS {known.atlas}" if known else ""]
        lines += [f"fingerprint: {alert.fingerprint(outcome.subject.sha256)}"]
        made.text = "\n".join(filter(None, lines))
    below = [f"{a.level}, below {fail_on}: {plain(a.message)}" for a in alerts if a not in failing]
    below += [f"accepted by the baseline: {plain(a.message)}" for a in outcome.accepted if a.rule == rule]
    answer = {"BD-TRG-01": outcome.trigger, "BD-RCP-01": outcome.recipe}.get(rule)
    asked = rule not in ("BD-TRG-01", "BD-RCP-01") or (answer is not None and answer.p is not None)
    if not alerts and not below and not asked:
        SubElement(case, "skipped", message=plain(answer.reason if answer else "") or "not asked")
    elif not alerts and rule.startswith("BD-FILE") and not outcome.subject.format:
        SubElement(case, "skipped", message="no file was opened")
    if below:
        SubElement(case, "system-out").text = "\n".join(below)


def _conclusion(suite: Element, name: str, outcome: Outcome, error: str) -> None:
    case = _case(suite, name, "conclusion")
    if error:
        SubElement(case, "error", message=plain(error), type="tool-error").text = plain(error)
    elif outcome.verdict == "inconclusive" or outcome.reasons:
        SubElement(case, "error", message=plain(outcome.sentence()), type="inconclusive").text = "\n".join(
            plain(reason) for reason in outcome.reasons
        )
    else:
        SubElement(case, "system-out").text = plain(outcome.sentence(), 4000)


def _case(suite: Element, group: str, name: str, seconds: float = 0.0) -> Element:
    return SubElement(suite, "testcase", classname=group, name=plain(name, 200), time=f"{seconds:.3f}")
