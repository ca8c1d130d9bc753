"""`bands scan model` and its reports: exit codes, files, baselines, and that nothing ends with 0 unjudged."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file

from scan_outcomes import BROKEN, RECIPE, TRIGGER, VERDICTS, outcome
from torchbands import zoo
from torchbands.cli import main
from torchbands.cli.output import Reports, read_baseline, write_whole
from torchbands.cli.parser import make_parser
from torchbands.core.errors import BandsError, InputError, NotApplicable, UnknownName
from torchbands.core.registry import build
from torchbands.modalities.image import Image
from torchbands.networks import SmallCNNNetwork
from torchbands.scanner.alerts import LEVELS, Alert
from torchbands.scanner.outcome import Outcome, Subject
from torchbands.scanner.verdict import Verdict
from torchbands.testing.toys import toy

EXAMPLES = Path(__file__).parents[2] / "examples"
FORMATS = ("text", "json", "sarif", "junit", "html", "markdown")


class Seams:
    """Stands in for opening and judging: what they give is set by a test."""

    def __init__(self) -> None:
        self.result: Outcome | Exception = outcome("none")
        self.alerts: tuple[Alert, ...] = ()
        self.opens = True
        self.calls: list[dict[str, Any]] = []

    def open(self, path: Path, **more: Any) -> Any:
        subject = Subject("model", str(path), "9f" * 32, "safetensors")
        model = SimpleNamespace(classes=2, modality=None, capabilities=()) if self.opens else None
        return SimpleNamespace(model=model, alerts=self.alerts, facts={}, subject=lambda: subject, path=str(path))

    def scan(self, model: Any, data: Any, refs: Any, **more: Any) -> Outcome:
        self.calls.append(more)
        if isinstance(self.result, Exception):
            raise self.result
        return replace(self.result, subject=more["subject"])


@pytest.fixture
def seams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seams:
    made = Seams()
    refs = SimpleNamespace(
        modality=None, classes=2, class_names=("a", "b"), card={"architecture": "x:y"}, unsummed=lambda: 0
    )
    monkeypatch.setattr("torchbands.scanner.opening.open_suspect", made.open, raising=False)
    monkeypatch.setattr("torchbands.scanner.scan_model.scan", made.scan)
    monkeypatch.setattr("torchbands.scanner.references.ReferenceSet.load", lambda folder: refs)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(b"x")
    return made


def run(*more: str) -> int:
    return main(["scan", "model", "m.safetensors", "--refs", "refs", *more])


@pytest.mark.parametrize("fail_on", LEVELS)
@pytest.mark.parametrize(
    ("verdict", "codes"),
    [
        ("indicated", {"low": 1, "medium": 1, "high": 1}),
        ("unusual", {"low": 1, "medium": 0, "high": 0}),
        ("none", {"low": 0, "medium": 0, "high": 0}),
        ("inconclusive", {"low": 3, "medium": 3, "high": 3}),
    ],
)
def test_exit_codes(seams: Seams, verdict: Verdict, codes: dict[str, int], fail_on: str) -> None:
    seams.result = outcome(verdict)
    assert run("--fail-on", fail_on) == codes[fail_on]


@pytest.mark.parametrize(("fail_on", "code"), [("low", 1), ("medium", 1), ("high", 0)])
def test_a_medium_finding(seams: Seams, fail_on: str, code: int) -> None:
    seams.result = replace(outcome("indicated"), alerts=(BROKEN,))
    assert run("--fail-on", fail_on) == code


def test_other_failures_have_their_own_codes(seams: Seams, capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in (
        (BandsError("broken"), 2),
        (ZeroDivisionError("oh"), 2),
        (NotApplicable("a black box"), 3),
        (InputError("wrong"), 4),
        (KeyboardInterrupt(), 130),
    ):
        seams.result = error  # type: ignore[assignment]
        seams.scan = lambda *a, error=error, **k: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("torchbands.scanner.scan_model.scan", seams.scan)
            assert run() == code
    assert capsys.readouterr().out == ""


def test_a_missing_file_and_an_empty_folder_never_end_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["scan", "model", "nowhere.pt"]) == 4
    assert "there is no nowhere.pt" in capsys.readouterr().err
    assert main(["scan", "model", "empty"]) in (2, 3, 4)
    (tmp_path / "void.safetensors").write_bytes(b"")
    assert main(["scan", "model", "void.safetensors"]) == 3
    assert "is empty" in capsys.readouterr().err
    (tmp_path / "void.safetensors").write_bytes(bytes(8))
    assert main(["scan", "model", "void.safetensors"]) == 3
    printed = capsys.readouterr()
    assert "NO INDICATOR" not in printed.out and "void.safetensors" in printed.err + printed.out


def test_what_was_not_opened_is_inconclusive_or_worse(seams: Seams, capsys: pytest.CaptureFixture[str]) -> None:
    seams.opens = False
    assert run() == 3
    seams.alerts = (RECIPE,)
    assert run() == 3
    seams.alerts = (BROKEN,)
    assert run() == 1
    assert run("--fail-on", "high") == 3
    seams.alerts = (Alert("BD-FILE-01", "high", "os.system is called", "data.pkl"),)
    assert run("--fail-on", "high") == 1
    assert not seams.calls
    said = capsys.readouterr().out
    assert "os.system is called" in said and "no view looked at the model" in said


def test_without_references_and_rows_the_file_alone_is_told(seams: Seams, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "model", "m.safetensors"]) == 3
    assert "bands refs train" in " ".join(capsys.readouterr().out.split()) and not seams.calls


def test_findings_of_the_file_join_those_of_the_model(seams: Seams, capsys: pytest.CaptureFixture[str]) -> None:
    seams.alerts = (BROKEN,)
    assert run("--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "indicated" and [a["rule"] for a in found["alerts"]] == ["BD-FILE-02"]


def test_what_the_weights_do_not_bring_is_told_and_what_the_rows_are_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = SmallCNNNetwork(widths=(4,)).build(Image(channels=1, size=8), 10)
    arch = json.dumps(SmallCNNNetwork(widths=(4,)).spec())
    save_file({k: v for k, v in net.state_dict().items() if "normalize" not in k}, tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    scan = ["scan", "model", "m.safetensors", "--arch", arch, "--profile", "fast"]
    assert main([*scan, "--data", "vision/digits"]) == 3
    assert "--mean and --std" in capsys.readouterr().err
    assert main([*scan, "--data", "vision/digits", "--mean", "0.5", "--std", "0.25"]) == 3
    assert "--mean and --std" not in capsys.readouterr().err
    assert main(["scan", "model", "m.safetensors", "--data", "vision/digits", "--arch", "no.such:net"]) == 4
    assert "package.module:factory" in capsys.readouterr().err


def test_a_victim_and_rows_of_another_kind_are_refused_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.save(build("clean", "attack").run(toy("tabular", rows=64), 0), tmp_path / "v")  # type: ignore[attr-defined]
    np.savez(tmp_path / "images.npz", x=np.zeros((20, 3, 8, 8), np.float32), y=np.arange(20) % 4)
    assert (
        main(["scan", "model", str(tmp_path / "v"), "--data", str(tmp_path / "images.npz"), "--profile", "fast"]) == 4
    )
    said = capsys.readouterr().err
    assert "does not read the rows of" in said and "--data SOURCE" in said and "Traceback" not in said


def test_flags_reach_the_scan(seams: Seams) -> None:
    assert run("--profile", "fast", "--alpha", "0.01", "--seed", "7", "--class-names", "cat, dog") == 0
    call = seams.calls[0]
    assert (call["profile"], call["alpha"], call["seed"], call["class_names"]) == ("fast", 0.01, 7, ("cat", "dog"))
    assert run("--class-names", "cat,dog,bird") == 4
    assert run("--refs", "more") == 4
    assert run("--alpha", "5") == 4


def test_json_is_alone_on_stdout(seams: Seams, capsys: pytest.CaptureFixture[str]) -> None:
    seams.result = outcome("indicated")
    assert run("--json") == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["exit_code"] == 1 and found["verdict"] == "indicated"
    assert "Indicators found" in printed.err
    assert run("--format", "json") == 1
    again = json.loads(capsys.readouterr().out)
    assert again["alerts"] == found["alerts"]


def test_every_format_to_its_file_and_text_to_the_screen(
    seams: Seams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seams.result = outcome("indicated")
    flags = [part for kind in FORMATS for part in ("--format", f"{kind}=out/x.{kind}")]
    assert run(*flags) == 1
    assert capsys.readouterr().out.startswith("model: m.safetensors")
    texts = {kind: (tmp_path / "out" / f"x.{kind}").read_text("utf-8") for kind in FORMATS}
    assert json.loads(texts["sarif"])["runs"][0]["invocations"][0]["exitCode"] == 1
    assert json.loads(texts["json"])["alerts"][0]["message"] == TRIGGER.message
    assert ElementTree.fromstring(texts["junit"]).get("failures") == "1"
    assert texts["html"].startswith("<!doctype html>") and "```yaml" in texts["markdown"]
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_a_folder_takes_every_format(seams: Seams, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-o", "out", *(part for kind in FORMATS for part in ("--format", kind))) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"scan.txt", "scan.json", "scan.sarif", "scan.xml", "scan.html", "scan.md"}
    assert run("-o", "more/", "--format", "sarif=x.sarif") == 0
    assert {p.name for p in (tmp_path / "more").iterdir()} == {"scan.html", "scan.json"}
    assert capsys.readouterr().out.count("NO INDICATOR FOUND") == 2


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("r.html", "<!doctype"),
        ("r.sarif", "{"),
        ("r.xml", "<?xml"),
        ("r.md", "## "),
        ("r.txt", "model:"),
        ("r.json", "{"),
    ],
)
def test_a_file_is_told_by_its_suffix(seams: Seams, tmp_path: Path, name: str, start: str) -> None:
    assert run("-o", name) == 0
    assert (tmp_path / name).read_text("utf-8").startswith(start)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--format", "sarf"], "Did you mean 'sarif'"),
        (["--format", "sarif="], "names no file"),
        (["--format", "sarif", "--format", "json"], "only one format can go to stdout"),
        (["--json", "--format", "html"], "only one format"),
        (["--format", "json=a", "--format", "sarif=a"], "two formats"),
        (["-o", "x.html", "--format", "json", "--format", "sarif"], "one file for 2 formats"),
        (["-o", "x.pdf"], "unknown suffix"),
        (["--baseline", "nowhere.json"], "cannot be read"),
        (["--fail-on", "severe"], "invalid choice"),
    ],
)
def test_wrong_report_flags_are_refused_before_any_work(
    seams: Seams, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags) == 4
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == "" and not seams.calls


def test_a_report_that_cannot_be_written_is_2_and_the_others_are_written(
    seams: Seams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    assert run("--format", "json=taken", "--format", "sarif=ok.sarif", "--format", "html=file/x.html") == 2
    printed = capsys.readouterr()
    assert "cannot be written" in printed.err and "NO INDICATOR FOUND" in printed.out
    assert json.loads((tmp_path / "ok.sarif").read_text())["version"] == "2.1.0"
    assert not any((tmp_path / "taken").iterdir()) and not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


def test_a_report_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = tmp_path / "x.json"
    write_whole(at, "old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(BandsError, match="the disk is full"):
            write_whole(at, "new")
    assert at.read_text() == "old" and list(tmp_path.iterdir()) == [at]
    write_whole(at, "new\ud800")
    assert at.read_text() == "new\\ud800"


def test_a_failed_tool_leaves_a_report_that_says_so(seams: Seams, tmp_path: Path) -> None:
    seams.result = BandsError("the disk is full")
    assert run("--format", "sarif=x.sarif", "--format", "junit=x.xml") == 2
    call = json.loads((tmp_path / "x.sarif").read_text())["runs"][0]["invocations"][0]
    assert call["executionSuccessful"] is False and call["exitCode"] == 2
    assert ElementTree.parse(tmp_path / "x.xml").getroot().get("errors") == "1"
    seams.result = NotApplicable("two classes at least")
    assert run("--format", "sarif=y.sarif") == 3
    call = json.loads((tmp_path / "y.sarif").read_text())["runs"][0]["invocations"][0]
    assert call["executionSuccessful"] is True and call["exitCode"] == 3


def test_a_baseline_accepts_what_it_names_and_nothing_else(
    seams: Seams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seams.result = outcome("indicated")
    assert run("--write-baseline", "known.json") == 1
    known = json.loads((tmp_path / "known.json").read_text())
    assert len(known) == 2 and all(isinstance(k, str) for k in known)
    capsys.readouterr()
    assert run("--baseline", "known.json") == 0
    printed = capsys.readouterr().out
    assert "accepted by the baseline" in printed and TRIGGER.message[:40] in printed
    assert "beyond the 2 accepted by the baseline" in " ".join(printed.split())
    seams.result = replace(outcome("indicated"), alerts=(replace(TRIGGER, subject="another class"),))
    assert run("--baseline", "known.json") == 1
    seams.result = replace(outcome("inconclusive"), alerts=(RECIPE,))
    assert run("--baseline", "known.json", "--fail-on", "low") == 3
    assert run("--baseline", "known.json", "--write-baseline", "more.json") == 3
    assert set(known) == read_baseline(tmp_path / "more.json")


def test_a_baseline_of_one_model_does_not_fit_another() -> None:
    first = outcome("indicated")
    other = replace(first, subject=replace(first.subject, sha256="00" * 32))
    known = frozenset(a.fingerprint(first.subject.sha256) for a in first.alerts)
    assert first.accepting(known).exit_code() == 0 and other.accepting(known).exit_code() == 1
    bare = replace(first, subject=replace(first.subject, sha256=""))
    assert bare.accepting(frozenset(a.fingerprint("") for a in bare.alerts)).exit_code() == 1


@pytest.mark.parametrize("text", ["{}", "[1]", "not json", '["a", {}]', "[" * 100_000])
def test_a_broken_baseline_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(InputError, match="baseline"):
        read_baseline(tmp_path / "b.json")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_more_alerts_never_soften_a_verdict(verdict: Verdict) -> None:
    order = {"none": 0, "inconclusive": 1, "unusual": 2, "indicated": 3}
    for alert in (RECIPE, BROKEN, TRIGGER):
        made = outcome(verdict).adding((alert,))
        assert order[made.verdict] >= order[verdict] and alert in made.alerts
        levels = [LEVELS.index(a.level) for a in made.alerts]
        assert levels == sorted(levels, reverse=True)
        assert made.exit_code(alert.level) == 1
    assert outcome(verdict).adding(()) == outcome(verdict)


def commands(path: Path) -> list[str]:
    """Every `bands ...` line of a YAML file, wherever it stands."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)
        elif isinstance(node, str):
            found.extend(line for line in node.splitlines() if line.startswith("bands "))

    walk(yaml.safe_load(path.read_text("utf-8")))
    return found


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.y*ml")), ids=lambda p: p.name)
def test_the_commands_of_the_examples_are_ours(path: Path) -> None:
    lines = commands(path)
    assert lines
    for line in lines:
        given = make_parser().parse_args(shlex.split(line)[1:])
        assert given.calls == "scan:model" and given.refs
        assert Reports.of(given, out=given.out).fail_on == "medium"


def test_the_action_uploads_its_report_always() -> None:
    steps = yaml.safe_load((EXAMPLES / "github-action.yml").read_text("utf-8"))["jobs"]["scan"]["steps"]
    upload = next(s for s in steps if "upload-sarif" in s.get("uses", ""))
    assert upload["if"] == "always()"
    assert f"sarif={upload['with']['sarif_file']}" in next(s["run"] for s in steps if "bands scan" in s.get("run", ""))


@pytest.mark.parametrize(
    ("args", "calls"),
    [
        (["scan", "data", "x", "--model", "m", "--false-alarms", "0.02", "-o", "d/"], "scan:data"),
        (["refs", "train", "--like", "m", "--data", "d", "-n", "40", "-o", "r"], "refs:train"),
        (["refs", "train", "--data", "d", "-o", "r", "--recipe", "{}", "--recipe", "{}"], "refs:train"),
        (["refs", "show", "r"], "refs:show"),
        (["guard", "fit", "m", "--data", "d", "-o", "g", "--detector", "strip"], "guard:fit"),
        (["guard", "check", "g", "in", "--format", "junit=x.xml"], "guard:check"),
        (["repair", "m", "--data", "d", "-o", "r", "--max-drop", "0.05"], "repair:repair"),
    ],
)
def test_the_command_tree_knows(args: list[str], calls: str) -> None:
    assert make_parser().parse_args(args).calls == calls


def test_unknown_commands_are_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    for args, said in ((["scna"], "'scan'"), (["scan", "modle"], "'model'"), (["refs", "trian"], "'train'")):
        assert main(args) == 4
        assert said in capsys.readouterr().err


def test_formats_of_nothing_are_unknown() -> None:
    given = make_parser().parse_args(["scan", "model", "m", "--format", "pdf"])
    with pytest.raises(UnknownName):
        Reports.of(given)


def test_data_is_ranked_and_its_index_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=np.zeros((40, 1, 8, 8), np.uint8), y=np.arange(40) % 2)
    calls: list[dict[str, Any]] = []
    alert = Alert("BD-DAT-01", "medium", "31 of 200 rows of class 1 stand apart", "1")

    def scan_data(rows: Any, **more: Any) -> Outcome:
        calls.append(more | {"rows": len(rows)})
        return Outcome(Subject("data", rows.label, rows.sha256()), (alert,), methods=("cross-split",))

    monkeypatch.setattr("torchbands.scanner.dataset.scan_data", scan_data)
    data = ["scan", "data", "d.npz", "--false-alarms", "0.02", "--profile", "fast", "--seed", "3"]
    assert main([*data, "-o", "out/", "--clean", "d.npz"]) == 1
    call = calls[0]
    assert (call["rows"], call["false_alarms"], call["profile"], call["seed"]) == (40, 0.02, "fast", 3)
    assert call["folder"] == Path("out") and call["model"] is None and len(call["clean"]) == 40
    assert {p.name for p in Path("out").iterdir()} == {"scan.html", "scan.json"}
    printed = capsys.readouterr()
    assert "31 of 200 rows" in printed.out and "scores.csv" in printed.err
    assert main([*data, "--json", "--write-baseline", "known.json"]) == 1
    assert json.loads(capsys.readouterr().out)["subject"]["kind"] == "data" and calls[1]["folder"] is None
    assert main([*data, "--baseline", "known.json"]) == 0
    assert main(["scan", "data", "nowhere"]) == 4
    assert main([*data, "--model", "nowhere.pt"]) == 4
    Path("void.pt").write_bytes(b"")
    assert main([*data, "--model", "void.pt"]) == 3
    assert len(calls) == 3


def test_the_help_of_the_scanner_imports_nothing_heavy() -> None:
    for args in (
        ["scan", "model", "--help"],
        ["refs", "train", "--help"],
        ["repair", "--help"],
        ["guard", "fit", "-h"],
    ):
        code = f"import sys; from torchbands.cli import main; c = main({args!r}); sys.exit(c or 'torch' in sys.modules)"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0 and done.stdout.startswith("usage: bands"), done.stderr
