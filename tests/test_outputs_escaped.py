"""Names and texts of others are seen and do nothing, in every output."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from torchbands.cli import console, main, parser
from torchbands.cli.output import Reports
from torchbands.core.data import Data
from torchbands.core.defense import Suspicion
from torchbands.core.words import csv_cell, escaped, json_text, shown
from torchbands.modalities.text import Text
from torchbands.report.fragments import harmless
from torchbands.report.markdown import _safe
from torchbands.report.scan import FORMATS, render
from torchbands.scanner.outcome import Outcome, Subject
from torchbands.scanner.ranking import Ranking
from torchbands.scanner.row_files import write_index
from torchbands.scanner.rows import Rows

#: Clears the screen, hides text, a C1 control, turns text around, has no width, half of a character.
EVIL = "a\x1b[2J\x1b[8m\x9b31m\u202eb\u200bc\x07\ud83d"
BAD = [c for c in EVIL if not c.isprintable()]


def harmless_text(text: str) -> bool:
    return not [c for c in text if c in BAD]


def test_one_rule() -> None:
    assert escaped("plain, ä, 漢字, –") == "plain, ä, 漢字, –"
    assert escaped("\x1b\u202e\U000e0001") == "\\x1b\\u202e\\U000e0001"
    assert escaped("a\nb", keep="\n") == "a\nb" and shown("a\n\tb") == "a b"
    assert shown("x" * 700, 10) == "x" * 10 + "…"
    assert harmless_text(json_text({EVIL: [EVIL]})) and json.loads(json_text({EVIL: [EVIL]})) == {EVIL: [EVIL]}


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "|x", "%x"])
def test_no_cell_is_a_formula(cell: str) -> None:
    assert csv_cell(cell).startswith("'")


@pytest.mark.parametrize("cell", ["-1.5", "+3", "1e-07", "-1e-07", "nan", "a=b", "", "images/a-1.png"])
def test_numbers_and_names_stay_as_they_are(cell: str) -> None:
    assert csv_cell(cell) == cell


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_a_scan(kind: str) -> None:
    outcome = Outcome(Subject("model", EVIL, "0" * 64, EVIL), reasons=(EVIL,), not_covered=(EVIL,), version=EVIL)
    assert harmless_text(render(outcome, kind, fail_on="medium"))


def test_the_files_of_a_data_scan(tmp_path: Path) -> None:
    torch.manual_seed(0)
    n = 40
    names = ("=HYPERLINK(1)", EVIL)
    ids = tuple(f"=x{i}{EVIL}" for i in range(n))
    rows = Rows(Data(["w"] * n, torch.arange(n) % 2), Text(vocabulary=("w",), length=4), names, "r", ids)
    found = {"cross-split": Suspicion(torch.rand(n)), "z-score": Suspicion(torch.rand(n))}
    flagged = torch.arange(n) < 3
    write_index(tmp_path, rows, found, Ranking(torch.rand(n), torch.rand(n), flagged, flagged, (), (), {}, {}))
    for name in ("scores.csv", "cleaned.csv"):
        text = (tmp_path / name).read_text("utf-8")
        assert harmless_text(text), name
        assert not [c for line in csv.reader(text.splitlines()) for c in line if c.startswith("=")], name
    assert not list(tmp_path.glob(".*"))


def test_reports_of_a_store() -> None:
    assert harmless_text(_safe(EVIL)) and harmless_text(harmless(f'<p title="{EVIL}">{EVIL}</p>'))
    assert harmless_text(Text(vocabulary=("w",), length=4).render(EVIL))


def test_whatever_a_command_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys
    import warnings

    def run(args: list[str]) -> int:
        print(EVIL)
        print(EVIL, file=sys.stderr)
        console.note(EVIL)
        console.print_json({EVIL: EVIL})
        console.print_table((EVIL,), [(EVIL,)])
        with console.progress_bar() as bar:
            bar(0, 1, EVIL)
        print(warnings.formatwarning(EVIL, UserWarning, EVIL, 1), file=sys.stderr)  # pytest would keep a real one
        raise RuntimeError(EVIL)

    monkeypatch.setattr(parser, "run", run)
    assert main([]) == 2
    said = capsys.readouterr()
    assert harmless_text(said.out) and harmless_text(said.err)
    assert said.out.count("\\x1b[2J") >= 2 and said.err.count("\\x1b[2J") >= 4


class Panic(BaseException):
    """As a library of another language raises it."""


def test_a_panic_is_no_finding_and_the_report_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "scan.json"

    def run(args: list[str]) -> int:
        def work() -> Outcome:
            raise Panic("index out of bounds")

        return Reports(files=(("json", report),)).guarded(work, "model", "suspect")

    monkeypatch.setattr(parser, "run", run)
    assert main([]) == 2
    assert "index out of bounds" in json.loads(report.read_text())["error"]
