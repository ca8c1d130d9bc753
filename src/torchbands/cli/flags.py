"""The settings of a method: what each means, and how it is written as a flag."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchbands.core.errors import InputError
from torchbands.core.method import Method, hints_of
from torchbands.core.registry import build
from torchbands.core.spec_text import read, spelled

_PLAIN: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT"}
#: In front of the settings' names among what was parsed, which they would else share with the command's own flags.
_DEST = "setting:"


@dataclass(frozen=True)
class Setting:
    """One field of a method as a reader sees it."""

    name: str
    type: str
    default: Any
    about: str


def settings(cls: type[Method]) -> list[Setting]:
    """Every setting of a method with its help, own settings first."""
    about = field_docs(cls)
    hints = hints_of(cls)  # type: ignore[arg-type]
    found = [
        Setting(f.name, _type_name(hints[f.name]), _default(f), about.get(f.name, ""))
        for f in dataclasses.fields(cls)
        if f.name in hints
    ]
    own = set(vars(cls).get("__annotations__", {}))
    return sorted(found, key=lambda s: s.name not in own)


def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a class and of its bases; the nearest class wins."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            continue
        if not isinstance(body, ast.ClassDef):
            continue
        for field, after in zip(body.body, body.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(after):
                found[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found


def add_settings(parser: argparse.ArgumentParser, start: Method) -> None:
    """Add a flag for every setting of a method.

    Args:
        start: what the settings are where no flag says otherwise.
    """
    group = parser.add_argument_group(f"settings of {start.name}")
    taken = {action.dest for action in parser._actions}
    types = hints_of(type(start))  # type: ignore[arg-type]
    for setting in settings(type(start)):
        flag = f"method_{setting.name}" if setting.name in taken else setting.name
        default = getattr(start, setting.name)
        shown = " ".join(map(spelled, default)) if isinstance(default, tuple) else spelled(default)
        about = f"{setting.about} (default: {shown or 'none'})".strip().replace("%", "%%")
        group.add_argument(
            f"--{flag.replace('_', '-')}", dest=_DEST + setting.name, default=argparse.SUPPRESS, help=about,
            **_reading(types[setting.name], type(start), setting.name),
        )  # fmt: skip


def with_settings(start: Method, given: argparse.Namespace) -> Method:
    """The method with what the flags of `add_settings` say. Raises InputError for a value that it refuses."""
    said = {name.removeprefix(_DEST): value for name, value in vars(given).items() if name.startswith(_DEST)}
    spec = start.spec()
    return build(spec | {"params": spec["params"] | said}) if said else start


def _reading(hint: Any, cls: type[Method], name: str) -> dict[str, Any]:
    """How argparse reads a value of a type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in _PLAIN:
        return {"type": hint, "metavar": _PLAIN[hint]}
    if origin is typing.Literal and all(isinstance(a, str) for a in args):
        return {"choices": args}
    if _holds_method(hint):
        return {"type": _from_text, "metavar": "METHOD"}
    if origin is tuple and args[0] in _PLAIN and set(args[1:]) <= {args[0], ...}:
        many: Any = "*" if args[-1] is ... else len(args)
        return {"type": args[0], "nargs": many, "metavar": _PLAIN[args[0]]}
    return {"type": lambda text: read(f"{cls.name}({name}={text})")["params"][name], "metavar": "VALUE"}


def method_of(text: str, role: str) -> Method:
    """A method from its name, from what reports print of it, or from a JSON object with its name and settings."""
    return build(_from_text(text), role)


def _from_text(text: Any) -> str | Mapping[str, Any]:
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return text  # type: ignore[no-any-return]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"not JSON: {text!r} ({error})", hint='write it as \'{"name": "...", "setting": 1}\''
        ) from None
    return found  # type: ignore[no-any-return]


def _holds_method(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Method)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(str(a) for a in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
