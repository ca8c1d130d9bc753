"""A kind of sample that a plug-in adds works in every command: attack, defend, refs, scan, guard, repair, bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from test_plugin import PLUGIN, installed, python

#: Of what is done to series: 1 is a finding, 5 a repair that no references judged.
EXPECTED = {"scan model": 1, "guard alarm": 1, "repair": 5}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole toolkit has worked on series."""
    site = installed(PLUGIN, tmp_path_factory.mktemp("series"))
    done = python(str(Path(__file__).with_name("series_run.py")), "codes.json", site=site, seconds=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return site


def test_every_command_works_on_a_sixth_kind_of_sample(at: Path) -> None:
    codes = json.loads((at / "codes.json").read_text("utf-8"))
    assert codes == dict.fromkeys(codes, 0) | EXPECTED
    victim = json.loads((at / "victim" / "card.json").read_text("utf-8"))
    assert victim["task"]["name"] == "toy/series"


def test_files_of_its_own_format_are_read_and_its_rows_are_drawn(at: Path) -> None:
    drawn = (at / "alarm" / "scan.html").read_text("utf-8")
    assert "\u2581" in drawn and "\u2588" in drawn
    scores = (at / "data" / "scores.csv").read_text("utf-8").splitlines()
    assert len(scores) == 1 + 1024


def test_its_kind_is_named_and_compared_in_a_benchmark_report(at: Path) -> None:
    assert "toy/series" in (at / "report.html").read_text("utf-8")
