"""examples/tutorial.ipynb runs from its first cell to its last, and says what its text says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def run(cells: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """What a kernel does: every cell in one namespace; the value of a last expression is shown."""
    space: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, text in enumerate(cells, 1):
        tree = ast.parse(text, f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), space)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), space))
    return space, shown


def test_the_notebook_is_valid_and_holds_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)
        for link in re.findall(r"\]\((\.\./[^)#]+)", cell.source):
            assert (NOTEBOOK.parent / link).is_file(), link


def test_the_notebook_runs_and_finds_what_it_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    space, shown = run([cell.source for cell in notebook.cells if cell.cell_type == "code"])
    assert space["effect"]["asr"] > 0.9 and space["effect"]["control_asr"] < 0.3
    outcome = space["outcome"]
    assert outcome.verdict == "indicated" and outcome.target == "4" and outcome.exit_code() == 1
    assert "Indicators found" in next(value for value in shown if value is outcome)._repr_html_()
    assert space["uncalibrated"].exit_code() == 3
    triggered, ordinary = space["stopped"]
    assert triggered > 0.5 > 0.3 > ordinary
    assert space["repaired"]["asr"] < space["repaired"]["asr_before"]
    assert space["summary"].failed == 0 and shown[-2].loc["blended(target=4)", "strip"] > 0.5
    assert (tmp_path / "store" / "report.html").is_file() and (tmp_path / "store" / "report.tex").is_file()
