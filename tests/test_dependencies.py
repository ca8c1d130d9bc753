"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import torchbands

ROOT = Path(__file__).parents[1]
SOURCE = Path(torchbands.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Distribution -> the module that it brings, where the names differ.
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL", "harper-py": "harper"}
#: Imported by the tests of those who write methods, and declared by them.
TESTS = {"pytest"}


def declared(requirements: list[str]) -> set[str]:
    names = (re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0] for line in requirements)
    return {MODULES.get(name, name) for name in names if name != "torchbands"}


def imported() -> set[str]:
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
                found |= {str(a.value).split(".")[0] for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found - set(sys.stdlib_module_names) - {"torchbands"}


CORE = declared(PROJECT["dependencies"])
EXTRAS = {
    name: declared(lines) for name, lines in PROJECT["optional-dependencies"].items() if name not in ("dev", "all")
}


def test_what_is_imported_is_declared() -> None:
    assert imported() - CORE - TESTS - set().union(*EXTRAS.values()) == set()


def test_what_is_declared_is_imported() -> None:
    assert CORE - imported() == set()
    assert {name: modules - imported() for name, modules in EXTRAS.items() if modules - imported()} == {}


def test_all_brings_every_extra() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert set(line.removeprefix("torchbands[").removesuffix("]").split(",")) == set(EXTRAS)
