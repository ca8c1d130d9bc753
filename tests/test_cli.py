"""The command line: what it prints where, its exit codes, and that help costs nothing."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import report_store
from torchbands import zoo
from torchbands.cli import main
from torchbands.cli.doctor import CORE, EXTRAS
from torchbands.cli.flags import add_settings, field_docs, settings, with_settings
from torchbands.core.attack import Victim
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.registry import build, find, listing

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def python(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=ENVIRONMENT, timeout=100, **more)


def bands(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return python("-m", "torchbands", *args, **more)


@pytest.mark.parametrize(
    "args", [["--help"], ["bench", "run", "--help"], ["attack", "--help"], ["data", "list"], ["--version"]]
)
def test_help_and_data_do_not_import_torch(args: list[str]) -> None:
    code = (
        f"import sys; from torchbands.cli import main; main({args!r}); print('torch' in sys.modules, file=sys.stderr)"
    )
    done = python("-c", code)
    assert done.stderr.strip() == "False" and done.stdout


@pytest.mark.parametrize(
    "args",
    [["list"], ["list", "repair", "--json"], ["show", "badnetz"], ["attack", "badnetz"], ["defend", "i-bauu", "v"]],
)
def test_listing_and_suggesting_import_no_method(args: list[str]) -> None:
    code = (
        f"import sys; from torchbands.cli import main; main({args!r}); "
        "print('torch' in sys.modules, 'torchbands.attacks' in sys.modules, file=sys.stderr)"
    )
    assert python("-c", code).stderr.strip().splitlines()[-1] == "False False"


def test_showing_a_method_imports_no_other() -> None:
    code = (
        "import sys; from torchbands.cli import main; main(['show', 'badnets']); "
        "print([m for m in sys.modules if m.startswith('torchbands.defenses')], file=sys.stderr)"
    )
    assert python("-c", code).stderr.strip() == "[]"


def test_help_names_every_command_and_exit_code() -> None:
    done = bands("--help")
    assert done.returncode == 0
    for word in ("list", "show", "attack", "defend", "bench", "data", "doctor", "130"):
        assert word in done.stdout
    assert bands().stdout == done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["lst"], "Did you mean 'list'"),
        (["bench", "rnu"], "Did you mean 'run'"),
        (["data", "gett", "digits"], "Did you mean 'get'"),
        (["list", "atack"], "Did you mean 'attack'"),
        (["show", "bandets"], "Did you mean 'badnets'"),
        (["attack", "badnet"], "Did you mean 'badnets'"),
        (["attack", "badnets", "--task", "vision/digit"], "Did you mean 'vision/digits'"),
        (["attack", "badnets", "--task", "{"], "not JSON"),
        (["attack", "badnets", "--rate", "2"], "rate is a fraction in [0, 1], got 2.0"),
        (["attack", "badnets", "--rat", "0.1"], "Did you mean --rate?"),
        (["attack", "badnets", "--labels", "all"], "all-to-one"),
        (["scan", "model", "x", "--dat", "y"], "Did you mean --data?"),
        (["attack", "badnets", "--control", "nowhere"], "train, none or a victim directory"),
        (["defend", "neural-clense", "x"], "Did you mean 'neural-cleanse'"),
        (["defend", "neural-cleanse", "nowhere"], "not a victim directory"),
        (["data", "path", "digit"], "Did you mean 'digits'"),
        (["bench", "status", "nowhere"], "holds no benchmark"),
        (["bench", "report", "nowhere"], "no such directory"),
        (["bench", "run", "nope", "--store", "unused"], "unknown preset or file"),
        (["bench", "run", "quick", "--store", "unused", "--seeds", "0"], "at least 1"),
        (["bench", "run", "quick"], "--store"),
    ],
)
def test_wrong_usage_is_4_with_help_on_stderr_alone(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 4
    printed = capsys.readouterr()
    assert said in printed.err and "Traceback" not in printed.err
    assert printed.out == ""
    assert not any(tmp_path.iterdir())


def test_other_errors_are_2_and_declining_is_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(error: BaseException) -> Any:
        def run(_: object) -> int:
            raise error

        return run

    monkeypatch.setattr("torchbands.cli.parser.run", stop(NotApplicable("a black box gives no gradients")))
    assert main(["list"]) == 3
    assert capsys.readouterr().err.strip() == "not applicable: a black box gives no gradients"
    monkeypatch.setattr("torchbands.cli.parser.run", stop(ZeroDivisionError("oh")))
    assert main(["list"]) == 2
    assert "ZeroDivisionError: oh" in (said := capsys.readouterr().err) and "Traceback" not in said
    assert main(["list", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setattr("torchbands.cli.parser.run", stop(KeyboardInterrupt()))
    assert main(["list"]) == 130
    assert "again to resume" in capsys.readouterr().err


def test_list_as_json_is_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert {(m["role"], m["name"]) for m in found} == {(c.role, c.name) for c in listing()}
    assert printed.err == ""
    assert main(["list", "attack"]) == 0
    table = capsys.readouterr().out
    assert "badnets" in table and "arXiv:1708.06733" in table and "neural-cleanse" not in table


def test_show_prints_what_a_method_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "badnets"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "badnets · attack",
        "arXiv:1708.06733",
        "Deviations from the paper",
        "--rate",
        "bands attack badnets",
    ):
        assert words in printed
    assert main(["show", "badnets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rate = next(s for s in found["settings"] if s["name"] == "rate")
    assert rate["default"] == 0.1 and rate["type"] == "float" and "fraction" in rate["about"]


def test_a_method_far_from_its_paper_says_so_wherever_it_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "the paper has 97 %, this has 12 %"
    monkeypatch.setattr(find("strip", "input-detector"), "unreproduced", why)
    assert main(["list", "model-detector"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "neural-cleanse" in line)
    assert "Wang et al., S&P 2019" in line and "anomaly index" in line and "…" not in line  # in a pipe a row is a line
    assert main(["list", "input-detector"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("input-detector")]
    rows = {line.split()[1]: line for line in lines}
    assert "[unreproduced] Gao et al." in rows["strip"] and "[unreproduced]" not in rows["scale-up"]
    assert main(["show", "strip"]) == 0
    assert f"unreproduced: {why}" in capsys.readouterr().out
    assert main(["list", "input-detector", "--json"]) == 0
    told = {m["name"]: m["unreproduced"] for m in json.loads(capsys.readouterr().out)}
    assert told["strip"] == why and told["scale-up"] is None


def test_a_list_fits_a_terminal_of_80_columns_with_names_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, no_color=True, width=80, highlight=False, file=io.StringIO())
    monkeypatch.setattr("torchbands.cli.console.out", lambda: terminal)
    assert main(["list"]) == 0
    assert isinstance(terminal.file, io.StringIO)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in terminal.file.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80 and lines[0].split() == ["role", "name", "paper"]
    for cls in listing():
        at = next(i for i, line in enumerate(lines) if line.split()[:2] == [cls.role, cls.name])
        told = " ".join(" ".join([lines[at], *(line for line in lines[at + 1 : at + 3] if line[:1] == " ")]).split())
        mark = "[unreproduced] " if cls.unreproduced else ""
        assert told.startswith(f"{cls.role} {cls.name} {mark}{cls.paper}".rstrip()), told


def test_every_method_can_be_shown_and_names_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    for cls in listing():
        assert main(["show", f"{cls.role}/{cls.name}"]) == 0
        assert cls.name in capsys.readouterr().out


def test_flags_read_every_type_of_setting() -> None:
    def flags(name: str, *args: str) -> Method:
        start = build(name)
        parser = argparse.ArgumentParser()
        add_settings(parser, start)
        return with_settings(start, parser.parse_args(args))

    assert (
        flags("neural-cleanse(rows=9)", "--betas", "0.1", "0.2").label() == "neural-cleanse(rows=9, betas=(0.1, 0.2))"
    )
    assert flags("badencoder", "--no-frozen").label() in ("badencoder(frozen=False)", "badencoder")
    assert flags("observation(low=-2.0, high=2.0)", "--low", "-1.5").low == -1.5  # type: ignore[attr-defined]
    assert flags("observation(low=-2.0, high=2.0)", "--low", "None", "--high", "None").label() == "observation"
    assert flags("cross-split", "--learner", "sgd(lr=0.5)").learner.lr == 0.5  # type: ignore[attr-defined]
    assert flags("layerwise-weight-poisoning", "--words", "a", "b").words == ("a", "b")  # type: ignore[attr-defined]
    assert flags("lws", "--thesaurus", "((big, large), (odd, strange))").thesaurus[1] == ("odd", "strange")  # type: ignore[attr-defined]
    for cls in listing():
        assert flags(f"{cls.role}/{cls.name}") == cls(), "every method can be given flags"


def test_the_help_of_a_setting_is_the_string_under_it() -> None:
    clean = find("clean", "attack")
    assert field_docs(clean)["rate"] == "Always 0: nothing is poisoned."
    assert field_docs(clean)["target"] == "Target class of triggered samples."
    assert settings(clean)[0].name == "rate"


@pytest.mark.parametrize("cls", listing(), ids=lambda c: f"{c.role}/{c.name}")
def test_every_setting_says_what_it_is(cls: type[Method]) -> None:
    for setting in settings(cls):
        assert setting.about.endswith(".") and not setting.about.startswith(("Of ", "At most this", "The same.")), (
            setting
        )
        assert len(setting.about.split()) > 1, setting


@pytest.mark.parametrize("args", [["attack", "badnets", "--help"], ["defend", "neural-cleanse", "--help"]])
def test_flags_of_a_method_are_its_fields(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    printed = capsys.readouterr().out
    for setting in settings(find(args[1])):
        assert f"--{setting.name.replace('_', '-')}" in printed
    assert "--seed" in printed and "--json" in printed


def test_data_list_and_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    found = {s["name"]: s for s in json.loads(capsys.readouterr().out)}
    assert {"fashion-mnist", "cifar10", "digits"} <= set(found)
    assert main(["data", "get", "digits"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert main(["data", "path", "digits"]) == 0
    assert Path(capsys.readouterr().out.strip()) == folder and folder.is_dir()


def test_data_that_is_not_here_says_how_to_fetch_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHBANDS_CACHE", str(tmp_path))
    assert main(["data", "path", "mnist"]) == 2
    assert "bands data get mnist" in capsys.readouterr().err


def test_doctor_tells_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] and found["device"]["device"] and "digits" in found["data"]
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for extra, here in found["extras"].items():
        assert here or f"pip install 'torchbands[{extra}]'" in printed


def test_doctor_names_a_missing_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchbands.cli.doctor.CORE", (*CORE, "no-such-package"))
    assert main(["doctor"]) == 2
    assert "pip install no-such-package" in capsys.readouterr().out


def test_doctor_knows_the_packages_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {r.split(">=")[0] for r in project["dependencies"]} == set(CORE)
    declared = {k: {r.split(">=")[0] for r in v} for k, v in project["optional-dependencies"].items()}
    for extra, parts in EXTRAS.items():
        assert declared[extra] == {distribution for distribution, _ in parts}
    assert set(declared) - set(EXTRAS) == {"all", "dev"}


def test_attack_and_defend_from_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    task = json.dumps({"name": "vision/digits", "learner": {"name": "sgd", "epochs": 8, "batch": 64, "lr": 0.05}})
    victim = tmp_path / "victim"
    assert main(["attack", "badnets", "--task", task, "-o", str(victim), "--rate", "0.2", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["attack"]["params"]["rate"] == 0.2 and (victim / "card.json").is_file()
    assert found["metrics"]["asr"] > 0.8 > 0.4 > found["metrics"]["control_asr"]
    assert "epoch" in printed.err and "control" in printed.err
    assert main(["defend", "spectral-signatures", str(victim)]) == 0
    assert "AUROC" in capsys.readouterr().out
    assert main(["defend", "data-filter/spectral-signatures", str(victim), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["auroc"] is not None
    card = victim / "card.json"
    card.write_text(card.read_text()[:-20])
    assert main(["defend", "spectral-signatures", str(victim)]) == 2
    assert "card.json" in capsys.readouterr().err


def test_a_declining_defense_is_3(
    capsys: pytest.CaptureFixture[str], planted_victim: Victim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torchbands import zoo

    zoo.save(planted_victim, tmp_path / "v")

    def decline(self: Victim) -> None:
        raise NotApplicable("there is no poisoned data set to filter")

    monkeypatch.setattr(Victim, "training_data", decline)
    assert main(["defend", "spectral-signatures", str(tmp_path / "v")]) == 3
    printed = capsys.readouterr()
    assert "no poisoned data set" in printed.err and printed.out == ""


def test_bench_report_writes_what_is_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = report_store.write(tmp_path / "store", seeds=1)
    assert main(["bench", "report", str(store)]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["report.html", "report.md", "report.json"]
    assert main(["bench", "report", str(store), "-o", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "x.html")]
    assert main(["bench", "report", str(store), "-o", f"{tmp_path}/new/", "--format", "md,json"]) == 0
    assert (tmp_path / "new" / "report.md").is_file() and (tmp_path / "new" / "report.json").is_file()
    assert main(["bench", "report", str(store), "-o", str(tmp_path / "x.pdf")]) == 4


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    learner = {"name": "sgd", "epochs": 2, "batch": 64, "lr": 0.05}
    spec = {"tasks": [{"name": "vision/digits", "rows": 300, "learner": learner}], "attacks": ["badnets"]}
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(spec | {"defenses": ["spectral-signatures"], "seeds": [0], "question": "Does it run?"}))
    return path


def test_bench_runs_resumes_and_reports(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert main(["bench", "run", str(grid), "--store", str(store), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["computed"] == 4 and first["failed"] == 0
    assert "Does it run?" in (store / "report.html").read_text()
    assert main(["bench", "run", str(grid), "--store", str(store)]) == 0
    assert "0 cells computed, 4 found finished" in capsys.readouterr().out
    assert main(["bench", "status", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 0


@pytest.mark.timeout(500)
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_is_130_and_leaves_a_whole_store(grid: Path, tmp_path: Path) -> None:
    spec = json.loads(grid.read_text())
    grid.write_text(json.dumps(spec | {"seeds": list(range(60))}))
    store = tmp_path / "store"
    command = [sys.executable, "-m", "torchbands", "bench", "run", str(grid), "--store", str(store)]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores Ctrl-C
    ) as run:
        deadline = time.monotonic() + 300
        while not list(store.glob("records/[!.]*.json")) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err and out == ""
    for path in store.rglob("[!.]*.json"):
        json.loads(path.read_text())
    status = bands("bench", "status", str(store), "--json")
    count = json.loads(status.stdout)
    assert count["done"] >= 2 and count["missing"] > 0 and count["failed"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_pipe_is_not_an_error_message() -> None:
    command = [sys.executable, "-m", "torchbands", "data", "list", "--json"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == ""
        assert run.wait(timeout=60) == 141


def test_a_repair_keeps_its_model_and_a_detector_has_none(
    tmp_path: Path, planted_victim: Victim, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.save(planted_victim, tmp_path / "victim")
    assert main(["defend", "fine-tune", str(tmp_path / "victim"), "--epochs", "1", "-o", str(tmp_path / "mended")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("fine-tune(epochs=1) (repair) on badnets") and "repaired model:" in shown
    assert zoo.load(tmp_path / "mended").info["repaired_by"]["name"] == "fine-tune"
    assert main(["defend", "strip", str(tmp_path / "victim"), "-o", str(tmp_path / "no")]) == 4
    assert "makes no model" in capsys.readouterr().err
