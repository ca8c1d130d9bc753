"""The first path of docs/scanner.md, run as it is written."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from torchbands.cli import main
from torchbands.cli.parser import make_parser

PAGE = (Path(__file__).parents[1] / "docs" / "scanner.md").read_text("utf-8")
STEPS = re.findall(r"<!-- run: (.*?) -->\n```\n(.*?)```", PAGE, re.S)


def test_every_command_of_the_page_is_one_that_the_parser_takes() -> None:
    lines = [line for block in re.findall(r"```\n(bands .*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(lines) >= 7 and len(STEPS) == 4
    for line in lines:
        assert hasattr(make_parser().parse_args(shlex.split(line)[1:]), "calls"), line


@pytest.mark.slow
def test_the_first_path_ends_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for said, block in STEPS:
        for line in block.splitlines():
            wanted = {0} if said == "make" else {int(code) for code in re.findall(r"\d+", said)}
            code = main(shlex.split(line)[1:])
            assert code in wanted, line
    assert "data:image/png;base64" in (tmp_path / "suspect.html").read_text("utf-8")
    told = json.loads((tmp_path / "repaired" / "repair.json").read_text("utf-8"))
    assert told["accepted"]["name"]
    last = told["steps"][-1]
    assert (code == 0) == last["calibrated"]
