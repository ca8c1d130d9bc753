"""The guide's code is complete: written to files as it says, it passes the contract and runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import torchbands

GUIDE = Path(__file__).parents[1] / "docs" / "extend.md"
SOURCE = Path(torchbands.__file__).parents[1]
BLOCKS = dict(re.findall(r"^```\w+ title=(\S+)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.M | re.S))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(where: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(where), str(SOURCE)]), "OMP_NUM_THREADS": "1"},
        cwd=where,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_guide_s_methods_pass_the_contract(written: Path) -> None:
    assert "30 passed" in run(written, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_methods.py")


def test_the_guide_s_example_runs_and_its_detector_sees_its_attack(written: Path) -> None:
    told = run(written, "try_it.py")
    success, suspect, normal = map(float, re.findall(r"\d+\.\d+", told))
    assert success > 0.9 and suspect > normal, told


def test_the_guide_s_project_file_names_modules_of_the_guide() -> None:
    points = tomllib.loads(BLOCKS["pyproject.toml"])["project"]["entry-points"]["torchbands.methods"]
    assert {f"{module}.py" for module in points.values()} <= set(BLOCKS)


def test_the_guide_s_commands_load_its_files(written: Path) -> None:
    commands = re.findall(r"^bands (--load .*)$", GUIDE.read_text(encoding="utf-8"), re.M)
    assert len(commands) == 3
    shown = run(written, "-m", "torchbands", *shlex.split(commands[0]))
    assert "--strength" in shown and "How much the lines are brightened" in shown
    tiny = "vision/digits(rows=200, learner=sgd(epochs=1))"
    attack = [tiny if word == "vision/digits" else word for word in shlex.split(commands[1])]
    assert "stripes(strength=0.5) on vision/digits" in run(written, "-m", "torchbands", *attack)
    grid = {"tasks": ["toy/image"], "attacks": ["stripes"], "defenses": ["far-from-class"], "seeds": [0]}
    (written / "grid.json").write_text(json.dumps(grid))
    assert "4 cells computed" in run(written, "-m", "torchbands", *shlex.split(commands[2]))
    told = json.loads((written / "results" / "grid.json").read_text())["command"]
    assert told == f"bands {commands[2]}"  # what a report says it was made with works when it is typed
    assert run(written, "-m", "torchbands", "bench", "report", "results", "--format", "csv", "-o", "-").count("stripes")
