"""A kind of sample owns all that is particular to it: elsewhere code asks what samples have, never which kind they are.

What is asked for has a default in `core.modality`, so that a kind from another package works wherever built-in ones do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import torchbands
from torchbands.core.kinds import kinds

ROOT = Path(torchbands.__file__).parent
CLASSES = {kind.__name__ for kind in kinds() if kind.__module__.startswith("torchbands.")}
#: Which files may look at a kind of sample itself.
OWNERS = ("modalities/", "core/modality.py", "core/kinds.py")
#: Places that ask all the same, as "file: code", each with its reason. It is empty, and should stay so.
ALLOWED: dict[str, str] = {}


def _is_kind(node: ast.expr) -> bool:
    """`Image`, `image.Image`, `Image | None`, `(Image, Text)`."""
    return any(
        (isinstance(part, ast.Name) and part.id in CLASSES)
        or (isinstance(part, ast.Attribute) and part.attr in CLASSES)
        for part in ast.walk(node)
    )


def _is_modality(node: ast.expr) -> bool:
    """`modality`, `task.modality`, `self._modality`, `type(model.modality)`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "type" and node.args:
        return _is_modality(node.args[0])
    named = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return named.strip("_") == "modality"


def _names_kind(node: ast.AST) -> bool:
    """Whether an expression holds a modality's name or label."""
    return any(
        isinstance(part, ast.Attribute)
        and part.attr in ("name", "label", "plural", "__name__", "__class__")
        and _is_modality(part.value)
        for part in ast.walk(node)
    )


def _asks(node: ast.AST) -> bool:
    """Whether a piece of code asks which kind of sample it has before it."""
    match node:
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kind]):
            return _is_kind(kind)
        case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "vars"), args=[given, *_]):
            return _is_modality(given)
        case ast.Call(func=ast.Attribute(attr="get" | "startswith" | "endswith" | "index" | "count") as called):
            return _names_kind(called.value) or any(_names_kind(given) for given in node.args)
        case ast.Compare():
            parts = [node.left, *node.comparators]
            typed = any(ast.unparse(part).startswith("type(") for part in parts)
            return any(map(_names_kind, parts)) or (typed and any(map(_is_kind, parts)))
        case ast.Subscript():
            return _names_kind(node.slice)
        case ast.Match():
            return _names_kind(node.subject) or _is_modality(node.subject)
        case ast.MatchClass():
            return _is_kind(node.cls)
        case ast.Dict():
            return any(key is not None and _is_kind(key) for key in node.keys)
    return False


def questions(code: str) -> Iterator[tuple[int, str]]:
    """(line, code) of each place that asks."""
    for node in ast.walk(ast.parse(code)):
        if _asks(node):
            assert isinstance(node, (ast.expr, ast.stmt, ast.pattern))
            yield node.lineno, ast.unparse(node)


def test_nobody_asks_which_kind_of_sample_it_has() -> None:
    found = [
        f"{name}:{line}: {code}"
        for path in sorted(ROOT.rglob("*.py"))
        if not (name := path.relative_to(ROOT).as_posix()).startswith(OWNERS)
        for line, code in questions(path.read_text("utf-8"))
        if f"{name}: {code}" not in ALLOWED
    ]
    print(f"places outside of modalities/ that ask for a kind of sample: {len(found)}")
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(model.modality, Image)",
        "isinstance(x, (Text, Tabular))",
        "isinstance(x, image.Image | None)",
        "issubclass(kind, Observation)",
        "type(x) is Code",
        "getattr(modality, 'columns', None)",
        "hasattr(task.modality, 'tokenizer')",
        "modality.name == 'image'",
        "rows.modality.name in ('text', 'code')",
        "TABLE[model.modality.name]",
        "TABLE.get(model.modality.name)",
        "modality.name.startswith('token')",
        "{Image: 1, Text: 2}",
        "match modality:\n    case Image():\n        pass",
        "match x:\n    case Tabular():\n        pass",
    ],
)
def test_each_way_to_ask_is_seen(code: str) -> None:
    assert list(questions(code))


@pytest.mark.parametrize(
    "code", ["f'not {modality.name}'", "modality.has_pixels", "Image(channels=3)", "modality == other.modality"]
)
def test_what_a_sample_has_may_be_asked_and_its_kind_be_told(code: str) -> None:
    assert not list(questions(code))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_every_kind_says_what_several_samples_are_called(kind: type) -> None:
    assert getattr(kind, "plural").isalpha()  # noqa: B009
