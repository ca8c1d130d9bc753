"""The numbers of a benchmark as rows, a frame, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

import report_store
from torchbands import build, report
from torchbands.cli import main
from torchbands.core.errors import MissingExtra, UnknownName
from torchbands.report.tabular import COLUMNS


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_store.write(tmp_path_factory.mktemp("made") / "store")


def test_rows_hold_every_number_of_the_report_once(store: Path) -> None:
    results = report.collect(store)
    rows = report.rows(results)
    assert rows == report.rows(store) == report.rows(str(store)) and all(tuple(row) == COLUMNS for row in rows)
    keys = [(r["task"], r["attack"], r["defense"], r["role"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys)
    (task,) = results.tasks
    for attack in task.attacks:
        for defense in task.defenses:
            cell = task.cell(attack, defense)
            mine = [r for r in rows if (r["attack"], r["defense"]) == (attack.label, defense.label)]
            for name, value in cell.metrics.items():
                (row,) = [r for r in mine if r["metric"] == name]
                assert (row["mean"], row["low"], row["high"], row["n"]) == (value.mean, value.low, value.high, value.n)
            assert {r["state"] for r in mine} == {cell.state} and {r["role"] for r in mine} == {defense.role}
            assert build(defense.label, defense.role).label() == defense.label
    alone = {r["metric"]: r for r in rows if r["attack"] == "badnets" and r["role"] == "attack"}
    assert (
        alone["asr"]["unit"] == "fraction"
        and alone["asr"]["better"] == "lower"
        and alone["stealth_input.ssim"]["n"] == 3
    )
    assert alone["cost.seconds"]["unit"] == "s"


def test_what_has_no_number_says_why(tmp_path: Path) -> None:
    store = report_store.write(tmp_path / "store", seeds=1)
    for path in (store / "records").glob("d-v-0-0-anp*"):
        path.unlink()
    gap = [r for r in report.rows(store) if r["attack"] == "badnets" and r["defense"] == "anp"]
    assert [(r["state"], r["metric"], r["mean"], r["reason"]) for r in gap] == [("missing", "", None, "not run yet")]


def test_frame_is_the_rows_in_pandas(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = report.frame(store)
    assert list(frame.columns) == list(COLUMNS) and len(frame) == len(report.rows(store))
    table = frame.query("metric == 'auroc'").pivot_table("mean", "attack", "defense")
    (task,) = report.collect(store).tasks
    cell = next(c for c in task.cells if (c.attack, c.defense) == ("badnets", "strip"))
    assert table.loc["badnets", "strip"] == cell.metrics["auroc"].mean
    assert str(frame["n"].dtype) == "Int64" and frame["mean"].dtype == float
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"torchbands\[pandas\]"):
        report.frame(store)


def test_csv_reads_back_and_holds_no_formula(tmp_path: Path) -> None:
    store = report_store.write(tmp_path / "store", rename={"badnets": "=cmd|' /C calc'!A0"}, seeds=2)
    text = report.render(store, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(report.rows(store))
    assert {r["attack"] for r in rows if "calc" in r["attack"]} == {"'=cmd|' /C calc'!A0"}
    frame = pd.read_csv(io.StringIO(text), keep_default_na=True)
    for read, row in zip(frame["mean"], report.rows(store)):
        assert (row["mean"] is None and read != read) or read == pytest.approx(row["mean"], rel=1e-6)


def test_latex_is_balanced_escaped_and_says_what_it_shows(tmp_path: Path) -> None:
    store = report_store.write(
        tmp_path / "store", rename={"badnets": "50%_of\\all {x} & $y$ #1 ~^\n\\input{/etc/passwd}"}
    )
    text = report.render(store, "latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 6
    assert r"50\%\_of\textbackslash{}all \{x\} \& \$y\$ \#1" in text and "\\input{" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    body = "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_#%~^]", re.sub(r"\\(toprule|midrule|bottomrule)", "", body))
    for part in re.findall(r"\\begin{tabular}{(l r*|lr*)}(.*?)\\end{tabular}", text, re.S):
        for line in part[1].splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(part[0]) - 1, line
    assert r"Mean over 3 seeds with its 95\,\% interval" in text and "lower is better" in text
    assert r"$\pm$" in text and "(wanet) &" in text.split("worst attack &")[1].splitlines()[0]
    assert "failed runs count as AUROC" in text or "failed run counts as AUROC" in text


def test_the_command_writes_what_is_asked_under_either_name(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, suffix in (("csv", "csv"), ("latex", "tex"), ("markdown", "md"), ("tex", "tex")):
        assert main(["bench", "report", str(store), "--format", name, "-o", f"{tmp_path}/{name}/"]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / name / f"report.{suffix}")
        assert (tmp_path / name / f"report.{suffix}").read_text() == report.render(store, name)
    assert main(["bench", "report", str(store), "-o", str(tmp_path / "numbers.csv")]) == 0
    assert (tmp_path / "numbers.csv").read_text().startswith("task,attack")
    capsys.readouterr()
    assert main(["bench", "report", str(store), "--format", "csv", "-o", "-"]) == 0
    assert capsys.readouterr().out == report.render(store, "csv")
    assert main(["bench", "report", str(store), "-o", "-"]) == 4 and "--format html|" in capsys.readouterr().err
    assert main(["bench", "report", str(store), "--format", "cvs"]) == 4
    assert "Did you mean 'csv'" in capsys.readouterr().err
    with pytest.raises(UnknownName):
        report.render(store, "pdf")
