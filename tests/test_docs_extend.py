"""The guide's code is complete: written to files as it says, it passes the contract and runs."""

from __future__ import annotations

import os
import re
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
    assert "27 passed" in run(written, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_methods.py")


def test_the_guide_s_example_runs_and_its_detector_sees_its_attack(written: Path) -> None:
    told = run(written, "try_it.py")
    success, suspect, normal = map(float, re.findall(r"\d+\.\d+", told))
    assert success > 0.9 and suspect > normal, told


def test_the_guide_s_project_file_names_modules_of_the_guide() -> None:
    points = tomllib.loads(BLOCKS["pyproject.toml"])["project"]["entry-points"]["torchbands.methods"]
    assert {f"{module}.py" for module in points.values()} <= set(BLOCKS)
