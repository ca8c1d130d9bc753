"""Hooks, the action and the container: they are parsed, and the very commands that they hold are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from torchbands import build, references_of
from torchbands.cli import main
from torchbands.cli.parser import make_parser
from torchbands.core.task import Task

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "automation.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```\w+ title=(\S+)\n(.*?)^```$", PAGE, re.M | re.S))
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))}
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
CONTAINER = (ROOT / "Containerfile").read_text("utf-8")
NETWORK = "small-cnn(widths=(4, 8))"
TASK = build(f"vision/digits(rows=300, network={NETWORK}, learner=sgd(epochs=2, batch=64, lr=0.3))", "task")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository: a good model, a pickle that runs code, references and a suspect.toml."""
    assert isinstance(TASK, Task)
    work = tmp_path_factory.mktemp("repository")
    (work / "models").mkdir()
    module = build("clean", "attack").run(TASK, 3).model.module  # type: ignore[attr-defined]
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, work / "models" / "good.safetensors")
    (work / "models" / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch EXECUTED'\ntR.")
    references_of(TASK, work / "refs", n=5, profile="fast")
    settings = {"arch": NETWORK, "classes": 10, "size": 8, "channels": 1}
    (work / "suspect.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items()))
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def hooked(hook: dict[str, Any], *args: str, files: list[str]) -> int:
    """What pre-commit runs: the entry, the arguments, the files that match."""
    entry = shlex.split(hook["entry"])
    assert entry[0] == "bands" and hook["language"] == "python" and hook["require_serial"]
    return main([*entry[1:], *args, *(f for f in files if re.search(hook["files"], f))])


def test_the_hook_for_files_passes_what_is_ordinary_and_stops_what_runs_code(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = HOOKS["bands-scan-files"]
    assert hooked(hook, files=["models/good.safetensors", "README.md"]) == 0
    printed = capsys.readouterr()
    assert (
        "not judged: a file of weights does not say its architecture" in printed.err
        and "No indicator" not in printed.out
    )
    assert hooked(hook, "--arch", NETWORK, "--data", TASK.label(), files=["models/good.safetensors"]) == 0
    printed = capsys.readouterr()
    assert "Inconclusive" in printed.out and "--accept-inconclusive lets pass" in printed.err
    assert hooked(hook, "--fail-on", "low", files=["models/good.safetensors"]) == 4
    capsys.readouterr()
    assert hooked(hook, files=["models/good.safetensors", "models/bad.pkl"]) == 1
    printed = capsys.readouterr()
    assert "2 models: 1 with findings, 1 without a finding" in printed.err and not Path("EXECUTED").exists()
    assert hooked(hook, files=["models/nowhere.pt", "models/good.safetensors"]) in (2, 4)  # and the other is looked at
    assert "== models/good.safetensors" in capsys.readouterr().out


def test_the_hook_for_models_judges_them_by_the_settings_of_the_page(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = {h["id"]: h for h in yaml.safe_load(BLOCKS[".pre-commit-config.yaml"])["repos"][0]["hooks"]}
    assert set(hooks) == set(HOOKS)
    args = [*hooks["bands-scan-models"]["args"], "--alpha", "0.2", "--json"]
    assert re.search(hooks["bands-scan-models"]["files"], "models/good.safetensors")
    before = Path("suspect.toml").read_text()
    code = hooked(HOOKS["bands-scan-models"], *args, files=["models/good.safetensors"])
    told = json.loads(capsys.readouterr().out)
    assert told["trigger"]["references"] == 5 and told["trigger"]["p"] is not None, told["reasons"]
    assert code in (0, 1, 3) and Path("suspect.toml").read_text() == before
    assert hooked(HOOKS["bands-scan-models"], files=["models/good.safetensors"]) == 4  # without them: never a pass
    assert hooked(HOOKS["bands-scan-models"], "--format", "json=x.json", files=["a.pt", "b.pt"]) == 4


def stepped(step: dict[str, Any], inputs: dict[str, str], where: Path) -> tuple[int, dict[str, str]]:
    """What a runner does with a step: inputs become the environment, and the text is run by bash."""
    assert step["shell"] == "bash" and "${{" not in step["run"]  # inputs are never part of the script
    given = {name: about.get("default", "") for name, about in ACTION["inputs"].items()} | inputs
    env = {k: given[re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", v)[1]] for k, v in step["env"].items()}  # type: ignore[index]
    path = where / "bin"
    path.mkdir(exist_ok=True)
    command = path / "bands"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m torchbands "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    told = where / "output"
    told.write_text("")
    extra = {"GITHUB_OUTPUT": str(told), "PATH": f"{path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    extra["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env=os.environ | env | extra, cwd=where, timeout=200, check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, dict(line.split("=", 1) for line in told.read_text().splitlines())


def test_the_action_scans_reports_and_tells_its_code(work: Path) -> None:
    step = next(s for s in ACTION["runs"]["steps"] if s.get("id") == "scan")
    suspects = "models/good.safetensors\n\nmodels/bad.pkl\n"
    code, told = stepped(step, {"suspect": suspects, "settings": "suspect.toml", "refs": "refs"}, work)
    assert code == 1 and told == {"reports": "bands-reports", "code": "1"} and not Path("EXECUTED").exists()
    found = sorted(str(p) for p in Path("bands-reports").rglob("*.sarif"))
    assert len(found) == 2 and all(json.loads(Path(p).read_text())["runs"] for p in found)
    said = "$(touch EXECUTED); `touch EXECUTED`"
    hostile = {"suspect": "models/good.safetensors", "arch": said, "refs": said, "accept-inconclusive": "true"}
    code, told = stepped(step, hostile, work)
    assert code == int(told["code"]) and code in (2, 4) and not Path("EXECUTED").exists()


def test_the_workflow_of_the_page_gives_the_action_what_it_takes() -> None:
    steps = yaml.safe_load(BLOCKS[".github/workflows/scan.yml"])["jobs"]["scan"]["steps"]
    bands = next(s for s in steps if s.get("id") == "bands")
    assert set(bands["with"]) <= set(ACTION["inputs"]) and ACTION["inputs"]["suspect"]["required"]
    install = ACTION["runs"]["steps"][0]
    assert "${{" not in install["run"] and "constraints.txt" in install["run"]


def instructions(stage: str) -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", "\n".join(l for l in stage.splitlines() if not l.startswith("#"))).splitlines()
    return [(word, rest) for word, _, rest in (line.strip().partition(" ") for line in lines) if word]


def test_the_image_has_no_rights_and_is_built_from_what_is_here() -> None:
    stages = re.split(r"(?m)^(?=FROM )", CONTAINER)[1:]
    last = instructions(stages[-1])
    assert ("USER", "10001:10001") in last and ("ENTRYPOINT", '["bands"]') in last
    assert [w for w, _ in last].index("USER") > max(i for i, (w, _) in enumerate(last) if w == "RUN")
    assert not [rest for word, rest in last if word == "RUN" and re.search(r"pip|curl|wget|apt", rest)]
    copied = [name for word, rest in instructions(stages[0]) if word == "COPY" for name in rest.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    kept = (ROOT / ".containerignore").read_text().splitlines()
    assert set(copied) == {line[1:] for line in kept if line.startswith("!")} and kept[0] == "*"
    assert (ROOT / ".dockerignore").read_text().splitlines() == kept
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert f"torch=={pinned['torch']}" in CONTAINER


def contained() -> list[str]:
    """The command of the page, after the name of the image; its flags are looked at here."""
    words = shlex.split(BLOCKS["scan.sh"])
    at = words.index("bands")
    flags = words[2:at]
    assert words[:2] == ["podman", "run"] and "--read-only" in flags and "--rm" in flags
    for flag, value in (("--network", "none"), ("--cap-drop", "all"), ("--security-opt", "no-new-privileges")):
        assert flags[flags.index(flag) + 1] == value
    mounts = [flags[i + 1] for i, word in enumerate(flags) if word == "-v"]
    assert {m.split(":")[1] for m in mounts if not m.endswith(":ro")} == {"/reports"} and len(mounts) == 3
    return words[at + 1 :]


def test_the_container_s_command_is_one_of_ours() -> None:
    given = make_parser().parse_args(contained())
    assert given.calls == "scan:model" and given.refs == ["/refs"] and given.out == "/reports/"


#: Makes all but /tmp and the reports read-only, in a namespace of its own without a network, as the container does.
WALLS = """
set -e
mount --bind "$REPORTS" "$REPORTS"
mount -t tmpfs -o size=2g,noexec,nosuid,nodev none /tmp 2>/dev/null || true
mount -o remount,bind,ro /
if touch "$ELSEWHERE" 2>/dev/null; then exit 99; fi
exec "$@"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no namespaces")
def test_a_scan_needs_no_network_and_nothing_to_write_to(work: Path) -> None:
    """The container's own command, behind the container's walls, as far as this machine lets a test build them."""
    probe = ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c", "mount -o remount,bind,ro /"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make namespaces")
    if any(Path(p).is_relative_to("/tmp") for p in (sys.prefix, ROOT)):
        pytest.skip("torchbands lies in /tmp here, where the walls put an empty one")
    home = Path(os.environ.get("XDG_RUNTIME_DIR", "/var/tmp")) / f"bands-test-{os.getpid()}"
    shutil.copytree(work, home)
    try:
        (home / "reports").mkdir()
        words = [w.replace("/suspect/model.safetensors", "models/bad.pkl") for w in contained()]
        words = [w.replace("/refs", "refs").replace("/reports", "reports") for w in words]
        env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        env |= {"REPORTS": str(home / "reports"), "ELSEWHERE": str(home / "x"), "HOME": "/tmp", "TMPDIR": "/tmp"}
        done = subprocess.run(
            [*probe[:-1], WALLS, "walls", sys.executable, "-m", "torchbands", *words],
            env=env, cwd=home, timeout=200, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr[-2000:]
        assert {p.suffix for p in (home / "reports").iterdir()} == {".html", ".json"}
        assert "os.system" in done.stdout or "system" in done.stdout, done.stdout
        assert not (home / "EXECUTED").exists()
    finally:
        shutil.rmtree(home)
