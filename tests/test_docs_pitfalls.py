"""docs/pitfalls.md names tests that exist, and leaves out none that were written for it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| what goes wrong"))
]
NAMED = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1]) for row in ROWS]


@cache
def functions_of(path: str) -> frozenset[str]:
    """Names of the test functions of a file, those made by an assignment too."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    made = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    made += [
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    ]
    return frozenset(name for name in made if name.startswith("test_"))


@pytest.mark.parametrize("at", range(len(ROWS)), ids=lambda at: ROWS[at][0][:40])
def test_every_row_names_tests_that_exist(at: int) -> None:
    assert len(ROWS[at]) == 3 and all(ROWS[at]) and NAMED[at]
    assert re.sub(r"`tests/[\w/]+\.py::\w+`|\s", "", ROWS[at][-1]) == "", "only names of tests in the last column"
    for path, name in NAMED[at]:
        assert (ROOT / path).is_file(), path
        assert name in functions_of(path), f"{path} has no {name}"


def test_every_test_of_a_pitfall_is_in_the_table() -> None:
    named = {pair for pairs in NAMED for pair in pairs}
    for path in sorted((ROOT / "tests").glob("test_pitfalls_*.py")):
        for name in functions_of(f"tests/{path.name}"):
            assert (f"tests/{path.name}", name) in named, name
