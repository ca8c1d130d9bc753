"""SARIF 2.1.0, as code hosts and other scanners' dashboards read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from torchbands import __version__
from torchbands.scanner.alerts import RULES, Alert, Level, Rule
from torchbands.scanner.outcome import Outcome
from torchbands.scanner.verdict import TOOL_ERROR

from .formatting import plain, remarks

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVEL = {"low": "note", "medium": "warning", "high": "error"}
_CODES = {0: "nothing at or above the level asked for", 1: "findings", 2: "tool error", 3: "inconclusive"}
_ORDER = list(RULES)


def render(outcome: Outcome, fail_on: Level, error: str) -> str:
    """One run with its rules, results, invocation and the scanned artifact."""
    code = TOOL_ERROR if error else outcome.exit_code(fail_on)
    uri = uri_of(outcome.subject.path)
    results = [_result(a, outcome, uri) for a in outcome.alerts]
    known = {"kind": "external", "status": "accepted", "justification": "accepted by the baseline"}
    results += [_result(a, outcome, uri) | {"suppressions": [known]} for a in outcome.accepted]
    driver = {"name": "torchbands", "version": outcome.version or __version__, "rules": _rules(outcome)}
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"torchbands/scan-{outcome.subject.kind}/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(outcome, code, error)],
        "results": results,
        "properties": _properties(outcome, fail_on),
    }
    if uri:
        run["artifacts"] = [_artifact(outcome, uri)]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False) + "\n"


def uri_of(path: str) -> str:
    """A path as a percent-encoded URI reference: relative where it lies in the working folder, else a file URI."""
    if not path:
        return ""
    at = Path(path)
    if at.is_absolute() and at.is_relative_to(Path.cwd()):
        at = at.relative_to(Path.cwd())
    encoded = quote_from_bytes(_bytes(at.as_posix()), safe="/-._~")
    return f"file://{encoded if encoded.startswith('/') else '/' + encoded}" if at.is_absolute() else encoded


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _rules(outcome: Outcome) -> list[dict[str, Any]]:
    """All rules of torchbands: an id that is missing would close old alerts as fixed."""
    made = [_rule(rule) for rule in RULES.values()]
    unknown = dict.fromkeys(a.rule for a in (*outcome.alerts, *outcome.accepted) if a.rule not in RULES)
    return made + [{"id": plain(rule, 60)} for rule in unknown]


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.name.replace("-", " ").capitalize() + "."},
        "fullDescription": {"text": rule.about},
        "help": {"text": f"{rule.about} MITRE ATLAS {rule.atlas}."},
        "defaultConfiguration": {"level": LEVEL[rule.level]},
        "properties": {"tags": ["security", rule.atlas], "security-severity": f"{rule.severity:.1f}"},
    }


def _result(alert: Alert, outcome: Outcome, uri: str) -> dict[str, Any]:
    fingerprint = alert.fingerprint(outcome.subject.sha256)
    about = plain(alert.subject, 200)
    result: dict[str, Any] = {
        "ruleId": plain(alert.rule, 60),
        "level": LEVEL[alert.level],
        "kind": "fail",
        "message": {"text": _message(plain(alert.message)) or "(no message)"},
        "partialFingerprints": {"torchbandsFinding/v1": fingerprint, "primaryLocationLineHash": f"{fingerprint}:1"},
        "properties": {"subject": about, "facts": _finite(alert.facts)},
    }
    if alert.rule in RULES:
        result["ruleIndex"] = _ORDER.index(alert.rule)
    if uri:
        place: dict[str, Any] = {
            "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}}
        }
        if about:
            place["logicalLocations"] = [{"name": about}]
        result["locations"] = [place]
    return result


def _message(text: str) -> str:
    """In SARIF's plain text, [a](1) is a link and {0} an argument."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("{", "{{").replace("}", "}}")


def _invocation(outcome: Outcome, code: int, error: str) -> dict[str, Any]:
    notes = [{"level": "error", "message": {"text": _message(plain(error))}}] if error else []
    notes += [{"level": "warning", "message": {"text": _message(plain(reason))}} for reason in outcome.reasons]
    notes += [{"level": "note", "message": {"text": f"not covered: {_message(plain(n))}"}} for n in outcome.not_covered]
    notes += [{"level": "note", "message": {"text": f"how it was read: {_message(n)}"}} for n in remarks(outcome)]
    made: dict[str, Any] = {
        "executionSuccessful": not error,
        "exitCode": code,
        "exitCodeDescription": _CODES[code],
        "toolExecutionNotifications": notes,
    }
    if ended := _utc(outcome.created):
        made["endTimeUtc"] = ended
    return made


def _artifact(outcome: Outcome, uri: str) -> dict[str, Any]:
    made: dict[str, Any] = {"location": {"uri": uri}, "roles": ["analysisTarget"]}
    return made | ({"hashes": {"sha-256": outcome.subject.sha256}} if outcome.subject.sha256 else {})


def _properties(outcome: Outcome, fail_on: Level) -> dict[str, Any]:
    found = outcome.to_json()
    keys = ("verdict", "sentence", "trigger", "recipe", "ledger", "methods", "not_covered", "reasons", "calibration")
    return {k: found[k] for k in (*keys, "alpha", "profile", "seed", "cost")} | {"fail_on": fail_on}


def _utc(created: str) -> str:
    try:
        return datetime.fromisoformat(created).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""


def _finite(facts: Any) -> Any:
    return json.loads(json.dumps(dict(facts), default=str), parse_constant=lambda _: None)
