"""Scan reports: every format over every verdict, valid by its own standard, harmless with hostile names."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

import scan_outcomes
from scan_outcomes import BROKEN, RECIPE, TRIGGER, VERDICTS, outcome
from torchbands.core.errors import UnknownName
from torchbands.report.scan import FORMATS, SUFFIXES, render
from torchbands.report.scan.formatting import facts as plain_facts
from torchbands.report.scan.formatting import plain
from torchbands.report.scan.sarif import uri_of
from torchbands.scanner.alerts import LEVELS, RULES, Alert
from torchbands.scanner.outcome import Outcome, Picture, Subject
from torchbands.scanner.verdict import Verdict

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "sarif" / "sarif-2.1.0.json").read_text("utf-8"))
#: Markup, Markdown, ANSI, new lines, a null, a bell, bidi, zero width, a lone surrogate, a non-character, a link.
HOSTILE = (
    "</td><script>alert(1)</script><img src=x onerror=alert(2)> ]]> --> &amp; \"q\" 'a' | `b` **c** [d](javascript:e)"
    "\r\n# head\n```\n::set-output x\x1b[31mred\x1b]8;;http://evil.example\x07 \x00 \u202eltr \u200b \ud800 \ufffe"
    " www.evil.example {0} \x9b2J"
)


def hostile() -> Outcome:
    """Everything that comes from outside says something nasty."""
    made = outcome("indicated")
    return replace(
        made,
        subject=Subject("model", f"a/{HOSTILE}", "ab" * 32, HOSTILE, {HOSTILE: HOSTILE, "nan": float("nan")}),
        alerts=(Alert("BD-TRG-01", "high", HOSTILE, HOSTILE, {HOSTILE: [HOSTILE, float("inf")]}), RECIPE),
        accepted=(Alert("X-UNKNOWN", "medium", HOSTILE, HOSTILE),),
        ledger=tuple(
            replace(line, view=HOSTILE, about=HOSTILE, reason=HOSTILE, target=HOSTILE, source=HOSTILE)
            for line in made.ledger
        ),
        source=HOSTILE,
        target=HOSTILE,
        pictures=(Picture(f"<img src='https://evil.example/x.png'><script>1</script>{HOSTILE}", HOSTILE),),
        methods=(HOSTILE,),
        not_covered=(HOSTILE,),
        reasons=(HOSTILE,),
        profile=HOSTILE,
        calibration={HOSTILE: HOSTILE},
        created=HOSTILE,
        version=HOSTILE,
    )


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("error", ["", "BandsError: the disk is full"])
def test_no_verdict_is_ever_clean_or_safe(verdict: Verdict, format: str, error: str) -> None:
    shown = render(outcome(verdict), format, error=error)
    nouns = r"(?!\s+(reference models?|data|rows?|samples|accuracy))"
    prose = (
        re.sub(r"<style>.*?</style>", "", shown, flags=re.S).replace("clean_samples", "").replace("clean samples", "")
    )
    assert not re.search(rf"\b(clean|safe|trustworthy|benign|passed)\b{nouns}", prose, re.I)
    assert "no indicator found" in html.unescape(shown).lower() or verdict != "none" or error


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_tells_the_whole_result(verdict: Verdict, format: str) -> None:
    made = outcome(verdict)
    shown = html.unescape(render(made, format)).replace("\\", "")
    for item in (*made.not_covered, *made.reasons, *(a.message for a in made.alerts)):
        if format != "junit" or item not in made.not_covered or verdict == "none":
            assert item in " ".join(shown.split()) or item in shown, item
    for line in made.ledger:
        assert line.view in shown
    if verdict == "indicated" and format != "junit":
        assert "0.0244" in shown or "0.02439" in shown
        assert "sneaker" in shown and "bag" in shown


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UnknownName, match="markdown"):
        render(outcome("none"), "markdwn")
    assert set(SUFFIXES) == set(FORMATS) and len(set(SUFFIXES.values())) == len(FORMATS)


@pytest.mark.parametrize("made", [*map(outcome, VERDICTS), hostile(), replace(hostile(), subject=Subject("model", ""))])
@pytest.mark.parametrize("error", ["", HOSTILE])
def test_sarif_is_valid_by_its_schema(made: Outcome, error: str) -> None:
    log = json.loads(render(made, "sarif", error=error))
    jsonschema.Draft7Validator(SCHEMA | {"$schema": "http://json-schema.org/draft-07/schema#"}).validate(log)
    jsonschema.Draft4Validator(SCHEMA).validate(log)


def test_the_schema_check_can_fail() -> None:
    log = json.loads(render(outcome("indicated"), "sarif"))
    log["runs"][0]["results"][0]["level"] = "terrible"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(SCHEMA).validate(log)


def test_sarif_has_what_code_hosts_read() -> None:
    made = replace(outcome("indicated"), accepted=(BROKEN,))
    run = json.loads(render(made, "sarif"))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [r["id"] for r in rules] == list(RULES)
    for rule in rules:
        assert 0.0 <= float(rule["properties"]["security-severity"]) <= 10.0
        assert RULES[rule["id"]].atlas in rule["properties"]["tags"]
    first, second, known = run["results"]
    assert (first["ruleId"], first["level"], second["level"], known["level"]) == (
        "BD-TRG-01",
        "error",
        "note",
        "warning",
    )
    assert rules[first["ruleIndex"]]["id"] == first["ruleId"]
    assert known["suppressions"][0]["status"] == "accepted" and "suppressions" not in first
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "models/shoes%20net.safetensors" and place["region"]["startLine"] == 1
    fingerprint = TRIGGER.fingerprint(made.subject.sha256)
    assert first["partialFingerprints"]["torchbandsFinding/v1"] == fingerprint
    assert run["artifacts"][0]["hashes"] == {"sha-256": made.subject.sha256}
    assert run["invocations"][0]["endTimeUtc"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("fail_on", LEVELS)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_sarif_and_json_tell_the_exit_code(verdict: Verdict, fail_on: str) -> None:
    made = outcome(verdict)
    call = json.loads(render(made, "sarif", fail_on=fail_on))["runs"][0]["invocations"][0]
    assert call["exitCode"] == made.exit_code(fail_on) and call["executionSuccessful"] is True
    assert json.loads(render(made, "json", fail_on=fail_on))["exit_code"] == made.exit_code(fail_on)
    call = json.loads(render(made, "sarif", error="it broke"))["runs"][0]["invocations"][0]
    assert call["exitCode"] == 2 and call["executionSuccessful"] is False
    assert any(n["level"] == "error" and "it broke" in n["message"]["text"] for n in call["toolExecutionNotifications"])


@pytest.mark.parametrize(
    "path",
    ["a b/ü.pt", "100%/x#y?z.pt", "a:b.pt", "back\\slash", "new\nline", "\udcff.pt", "/abs/ä ö.pt", "\ud800", ""],
)
def test_uris_are_escaped(path: str) -> None:
    uri = uri_of(path)
    assert re.fullmatch(r"[A-Za-z0-9%/._~:-]*", uri)
    parts = urlsplit(uri)
    assert parts.scheme == ("file" if path.startswith("/") else "") and not parts.query and not parts.fragment
    if path and "\ud800" not in path:
        assert unquote(parts.path, errors="surrogateescape") == path


def test_a_path_in_the_working_folder_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uri_of(str(tmp_path / "m" / "x.pt")) == "m/x.pt"
    assert uri_of(str(tmp_path.parent / "x.pt")).startswith("file:///")


def test_sarif_messages_hold_no_links_and_no_arguments() -> None:
    made = replace(outcome("none"), alerts=(Alert("BD-FILE-02", "medium", "see [this](https://evil.example) {0}"),))
    text = json.loads(render(made, "sarif"))["runs"][0]["results"][0]["message"]["text"]
    assert text == "see \\[this\\](https://evil.example) {{0}}"


def test_junit_counts_fit_and_fail_on_decides() -> None:
    made = replace(outcome("indicated"), accepted=(BROKEN,))
    for fail_on, failures in (("low", 2), ("medium", 1), ("high", 1)):
        root = ElementTree.fromstring(render(made, "junit", fail_on=fail_on))
        cases = root.findall(".//testcase")
        assert root.get("failures") == str(failures) == str(len(root.findall(".//failure")))
        assert root.get("tests") == str(len(cases)) and root.get("errors") == "0"
        assert root.get("skipped") == str(len(root.findall(".//skipped"))) == "1"
        names = [str(c.get("name")) for c in cases]
        assert len(set(names)) == len(names) and "pairwise-inversion (trigger)" in names
    assert "accepted by the baseline" in render(made, "junit")


def test_junit_of_an_inconclusive_or_failed_scan_is_an_error() -> None:
    root = ElementTree.fromstring(render(outcome("inconclusive"), "junit"))
    assert [e.get("type") for e in root.findall(".//error")] == ["inconclusive"]
    assert "only 12 reference models" in str(root.find(".//error").get("message"))  # type: ignore[union-attr]
    root = ElementTree.fromstring(render(outcome("none"), "junit", error="it broke"))
    assert [e.get("type") for e in root.findall(".//error")] == ["tool-error"]
    assert not ElementTree.fromstring(render(outcome("none"), "junit")).findall(".//error")


def test_the_model_card_block_is_json_and_yaml() -> None:
    for made in (*map(outcome, VERDICTS), hostile()):
        shown = render(made, "markdown")
        block = re.search(r"^```yaml\n(.*?)^```$", shown, re.M | re.S)
        assert block and shown.count("\n```") == 2
        card = json.loads(block[1])["backdoor_scan"]
        assert yaml.safe_load(block[1])["backdoor_scan"] == card
        assert {"tool", "version", "date", "model_sha256", "calibration", "results", "not_covered"} <= set(card)
        assert card["model_sha256"] == made.subject.sha256 and card["calibration"]["n_refs"] == 40


class _Page(HTMLParser):
    """What a browser would see: tags, attributes that load or run something, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "xlink:href", "srcset"):
                self.loads.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)


@pytest.mark.parametrize("made", [outcome("indicated"), hostile()])
def test_the_page_runs_and_loads_nothing(made: Outcome) -> None:
    shown = render(made, "html", error=HOSTILE)
    page = _Page()
    page.feed(shown)
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "form", "base"}
    assert not page.handlers
    assert all(at.startswith("#") or at.startswith("data:image/png;base64,") for at in page.loads)
    assert (
        "default-src 'none'" in html.unescape(shown)
        and "prefers-color-scheme: dark" in shown
        and "width=device-width" in shown
    )


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_names_stay_names(format: str) -> None:
    shown = render(hostile(), format, error=HOSTILE)
    shown.encode("utf-8")
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", shown
    )
    if format in ("text", "html", "junit"):
        assert "\\x1b" in shown and "\\u202e" in shown
    if format == "junit":
        ElementTree.fromstring(shown)
    if format == "markdown":
        human = shown.split("```yaml")[0]
        assert "<script" not in human and "<img" not in human and "\n# head" not in human
        assert not re.search(r"(?<!\\)\[d", human) and "http://" not in human and "www." not in human
        columns = {line.replace("\\|", "").count("|") for line in human.splitlines() if line.startswith("| high")}
        assert columns == {5}
    if format == "text":
        assert "\n# head" not in shown and "\n::set-output" not in shown


def test_plain_is_short_and_shows_what_hides() -> None:
    assert plain("a\x1b[0m\tb\nc") == "a\\x1b[0m b c"
    assert plain("\u202e\u2066\U000e0001") == "\\u202e\\u2066\\U000e0001"
    assert plain("Größe 猫 😀") == "Größe 猫 😀"
    assert len(plain("x" * 10_000_000)) == 601
    assert len(plain("\u202e" * 10_000)) <= 601


def test_a_scan_of_data_has_no_model_answers() -> None:
    alert = Alert("BD-DAT-01", "medium", "31 of 2,000 rows of class cat", "cat", {"rows": 31})
    made = Outcome(Subject("data", "pets/", "cd" * 32), (alert,), methods=("spectral-signatures",))
    for format in FORMATS:
        shown = render(made, format)
        assert "31 of 2,000 rows" in shown.replace("\\", "") and "p_recipe" not in shown
    assert "data_sha256" in render(made, "markdown")
    names = {c.get("name") for c in ElementTree.fromstring(render(made, "junit")).findall(".//testcase")}
    assert names == {"BD-DAT-01 suspicious-samples", "conclusion"}


def test_nothing_of_an_empty_outcome_breaks() -> None:
    made = Outcome(Subject("model", ""))
    for format in FORMATS:
        assert "nconclusive" in render(made, format)
    assert scan_outcomes.outcome("indicated").exit_code() == 1


def test_each_verdict_has_a_header_of_its_own_colour() -> None:
    shown = render(outcome("none"), "html")
    colours = re.findall(r"\.top\.is-(\w+) \{[^}]*background-color: (#\w+)", shown)
    assert {name for name, _ in colours} == {"indicated", "unusual", "inconclusive"}  # none keeps the page's own
    assert len({colour for _, colour in colours}) == 3
    for verdict in VERDICTS:
        assert f'class="top is-{verdict}"' in render(outcome(verdict), "html")


def test_how_far_the_model_stands_out_is_beside_p() -> None:
    found = outcome("indicated")
    for format in ("html", "text"):
        shown = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", render(found, format))).split())
        assert "strongest view: target-inversion, z = 41.3" in shown
    assert "p is at its floor" in render(found, "html") and "p is at its floor" not in render(outcome("none"), "html")
    alone = replace(found, ledger=())
    assert "strongest view" not in render(alone, "html") + render(alone, "text")


def test_facts_are_words_and_what_does_not_fit_is_counted() -> None:
    words = [{"word": "cf", "label": 1, "rows": 30, "p": 1e-9}, {"word": "mn", "label": 1, "rows": 4, "p": 0.5}]
    nested = {"words": words, "worst": [f"train/shoe/{i:05}.png" for i in range(80)], "none": [], "deep": {"a": [1, 2]}}
    told = dict(plain_facts(nested))
    assert told["words"] == "(word cf, label 1, rows 30, p 1e−09); (word mn, label 1, rows 4, p 0.5)"
    assert "none" not in told and told["deep"] == "a 1, 2"
    assert re.fullmatch(r"(train/shoe/\d{5}\.png, )+train/shoe/\d{5}\.png and \d+ more", told["worst"])
    made = replace(outcome("indicated"), alerts=(Alert("BD-DAT-01", "medium", "m", "c", nested),))
    for format in ("html", "text", "markdown"):
        shown = html.unescape(render(made, format)).split("```yaml")[0]
        assert "{'" not in shown and '{"' not in shown and "[{" not in shown and "…" not in shown


def test_trigger_sizes_stand_beside_those_of_the_references() -> None:
    shown = render(outcome("indicated"), "html")
    rows = re.findall(r'<svg class="dots".*?</svg></svg>', shown)
    assert len(rows) == 10 and all(row.count('class="ref"') == 40 for row in rows)
    assert ['class="less"' in row for row in rows] == [True] + [False] * 9
    assert 'aria-label="this model 9.2; references' in shown
    assert "How large a trigger" not in render(outcome("indicated", sizes={}), "html")
    missing = dict(outcome("none").sizes)
    missing |= {"suspect": [None] * 10, "references": [[]] * 10}
    assert "no trigger was found" in render(outcome("none", sizes=missing), "html")


def test_why_and_what_to_do_come_before_the_numbers() -> None:
    shown = render(outcome("inconclusive", next_steps=("train more references",)), "html")
    ids = re.findall(r'<section id="([\w-]+)"', shown)
    assert ids.index("reasons") < ids.index("next") < ids.index("answers")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_notebook_shows_the_outcome(verdict: Verdict) -> None:
    made = outcome(verdict)
    shown = made._repr_html_()
    text = re.sub(r"<[^>]+>", "", html.unescape(shown))
    assert plain(made.sentence(), 2000) in text and all(line.view in text for line in made.ledger)
    assert shown.count("<table>") == shown.count("</table>") >= 2 and len(shown) < 100_000
    assert ("<img" in shown) == bool(made.pictures)


def test_a_notebook_is_shown_nothing_that_acts() -> None:
    shown = hostile()._repr_html_()
    assert not re.search(r"<script|onerror=(?!alert\(2\)&gt;)|<[^>]*https?:", shown)
    assert not set(shown) & {"\x1b", "\x00", "\u202e", "\u200b", "\ud800"}
