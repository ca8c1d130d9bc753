"""Imports point one way: down the layers, and never in a circle. Imports inside functions count, those for types alone
do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import torchbands

ROOT = Path(torchbands.__file__).parent
#: From the top; packages of one line may use what is below them, and each other only from left to right.
LAYERS = (
    ("cli",),
    ("report",),
    ("scanner", "bench"),
    ("attacks", "defenses", "measures"),
    ("testing", "tasks", "language"),
    ("networks",),
    ("modalities",),
    ("triggers", "learners"),
    ("datasets", "zoo", "environments"),
    ("core",),
)
RANK = {name: (row, at) for row, names in enumerate(LAYERS) for at, name in enumerate(names)}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _imported(module: str, path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


GRAPH: dict[str, set[str]] = {
    module: {name for name in _imported(module, path) if name in MODULES and name != module}
    for module, path in MODULES.items()
}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The sets of nodes that reach each other (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return [circle for circle in found if len(circle) > 1]


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_no_modules_import_each_other_round_a_circle() -> None:
    found = circles(GRAPH)
    print(f"import circles: {len(found)} of {len(MODULES)} modules")
    assert found == []


def test_imports_point_down_the_layers() -> None:
    up = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if package(module) in RANK and package(other) in RANK and RANK[package(module)] > RANK[package(other)]
    ]
    print(f"imports against the layers: {len(up)}")
    assert up == []


def test_every_package_has_its_layer() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert packages == set(RANK)


def test_a_circle_and_an_arrow_up_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []
    assert RANK["core"] > RANK["tasks"] > RANK["cli"]
