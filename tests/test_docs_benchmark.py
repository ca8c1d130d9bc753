"""docs/benchmark.md: its grid, its commands and its Python run as they are written."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from torchbands import bench, report
from torchbands.bench.grid import _KEYS
from torchbands.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "benchmark.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```\w+ title=(\S+)\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = [line for block in re.findall(r"^```\n(bands .*?)^```$", PAGE, re.M | re.S) for line in block.splitlines()]


def test_the_page_runs_from_its_grid_to_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.json").write_text(BLOCKS["grid.json"])
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        assert main(shlex.split(command)[1:]) == 0, command
    printed = capsys.readouterr()
    assert "36 cells computed, 0 found finished, 0 not applicable, 0 failed" in printed.out and " left" in printed.err
    assert (tmp_path / "results" / "report.html").is_file() and "\\toprule" in (tmp_path / "tables.tex").read_text()
    with (tmp_path / "numbers.csv").open() as file:
        assert {row["defense"] for row in csv.DictReader(file)} >= {"", "strip", "fine-pruning(epochs=1)"}
    exec(compile(BLOCKS["run_it.py"], "run_it.py", "exec"), {})
    assert "0 computed, 36 found finished, 0 failed" in capsys.readouterr().out  # the same grid, said in Python
    read: dict[str, object] = {}
    exec(compile(BLOCKS["read_it.py"], "read_it.py", "exec"), read)
    printed = capsys.readouterr()
    assert re.search(r"^badnets: \d\.\d\d \[-?\d\.\d\d, \d\.\d\d\] over 3 seeds$", printed.out, re.M)
    assert "blended(rate=0.2)" in printed.out and len(read["repaired"]) == 3  # type: ignore[arg-type]


def test_the_page_names_every_key_and_format() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
    assert set(_KEYS) <= table and {"html", "markdown", "json", "csv", "latex"} <= table
    assert {report.format_of(name) for name in table - set(_KEYS)} == set(map(report.format_of, report.ALL_FORMATS))
    assert bench.load_grid({"tasks": ["toy/image"], "attacks": ["badnets"]}).seeds == (0, 1, 2)
    assert bench.load_grid({"tasks": ["toy/image"], "attacks": ["badnets"]}).min_asr == 0.5
