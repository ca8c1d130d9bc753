"""What the built-in methods are called, read from their source: listing them imports none of them.

Importing every method costs seconds, most of them torch and scikit-learn. A list, a suggestion for a typo and the help
of one method need only names, papers and first lines, which parsing the source gives in a tenth of a second.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .method import Method

ROOT = Path(__file__).parents[1]
#: Folders of the package that hold methods.
FOLDERS = (
    "core",
    "networks",
    "learners",
    "modalities",
    "tasks",
    "triggers",
    "attacks",
    "defenses",
    "measures",
    "testing",
)


@dataclass(frozen=True)
class Entry:
    """One method as a list shows it."""

    role: str
    name: str
    version: int
    paper: str
    needs: tuple[str, ...]
    unreproduced: str
    summary: str
    module: str

    @classmethod
    def of(cls, method: type[Method]) -> Entry:
        """The entry of a class that is imported already."""
        return cls(
            method.role,
            method.name,
            method.version,
            method.paper,
            tuple(method.needs),
            method.unreproduced,
            summary(inspect.getdoc(method)),
            method.__module__,
        )


def summary(doc: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return (doc or "").split("\n\n")[0].replace("\n", " ")


@cache
def built_in() -> tuple[Entry, ...]:
    """Every built-in method, by role and name. Empty where the package is installed without its source."""
    files = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    found = [entry for path in files for entry in _entries(path)]
    return tuple(sorted(found, key=lambda e: (e.role, e.name)))


def _entries(path: Path) -> list[Entry]:
    text = path.read_text("utf-8")
    if "@method" not in text:
        return []
    module = _Module.at(_name(path))
    return [module.entry(cls, call) for cls in module.classes.values() if (call := _decorator(cls))]


def _decorator(cls: ast.ClassDef) -> ast.Call | None:
    for node in cls.decorator_list:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "method":
            return node
    return None


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Module:
    """The classes of one source file, and where the names in it were imported from."""

    def __init__(self, name: str) -> None:
        path = ROOT.parent.joinpath(*name.split("."))
        is_package = (path / "__init__.py").is_file()
        tree = ast.parse((path / "__init__.py" if is_package else path.with_suffix(".py")).read_text("utf-8"))
        self.name = name
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self.origins: dict[str, tuple[str, str]] = {}
        package = name.split(".") if is_package else name.split(".")[:-1]
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    self.origins[alias.asname or alias.name] = (source, alias.name)

    @staticmethod
    @cache
    def at(name: str) -> _Module:
        return _Module(name)

    def entry(self, cls: ast.ClassDef, call: ast.Call) -> Entry:
        nodes = {keyword.arg: keyword.value for keyword in call.keywords} | dict(zip(("name",), call.args))
        given = {key: ast.literal_eval(node) for key, node in nodes.items()}
        return Entry(
            role=str(self.constant(cls, "role")),
            name=given["name"],
            version=given.get("version", 1),
            paper=given.get("paper", ""),
            needs=given.get("needs", ()),
            unreproduced=self.constant(cls, "unreproduced") or "",
            summary=summary(ast.get_docstring(cls)),
            module=self.name,
        )

    def constant(self, cls: ast.ClassDef, name: str) -> Any:
        """The value of a class variable, of this class or of the nearest base in the package that sets it."""
        for node in cls.body:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            value = getattr(node, "value", None)
            if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(value)
        for written in cls.bases:
            base = written.value if isinstance(written, ast.Subscript) else written
            if isinstance(base, ast.Name) and (found := self._class(base.id)):
                module, definition = found
                if (inherited := module.constant(definition, name)) is not None:
                    return inherited
        return None

    def _class(self, name: str) -> tuple[_Module, ast.ClassDef] | None:
        """Where a class that this file names is defined; None for one of another package."""
        if name in self.classes:
            return self, self.classes[name]
        source, original = self.origins.get(name, ("", ""))
        return _Module.at(source)._class(original) if source.startswith("torchbands.") else None
