"""The settings of a method: what each means, and how it is written as a flag."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torchbands.core.errors import InputError
from torchbands.core.method import Method, hints_of
from torchbands.core.registry import build

from .streams import raw_streams


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


def parse(start: Method, common: type, args: Sequence[str], prog: str) -> tuple[Method, Any]:
    """A method and an instance of `common` (a dataclass of flags every method has) from a command line.

    Args:
        start: what the settings are where no flag says otherwise.

    Raises InputError for a value that the method refuses; leaves with 0 after --help and 2 on a wrong command line.
    """
    import tyro

    cls = type(start)
    shared = dataclasses.fields(common)
    hints = typing.get_type_hints(common, include_extras=True)
    fields: list[Any] = [(f.name, hints[f.name], f) for f in shared]
    taken = {f.name for f in shared}
    flag_of: dict[str, str] = {}
    types = hints_of(cls)  # type: ignore[arg-type]
    for setting in settings(cls):
        flag = f"method_{setting.name}" if setting.name in taken else setting.name
        flag_of[setting.name] = flag
        hint, default = types[setting.name], getattr(start, setting.name)
        if _holds_method(hint):
            hint, default = str, _as_text(default)
        told: Any = Annotated[hint, tyro.conf.arg(help=setting.about or None)]
        fields.append((flag, told, dataclasses.field(default=default)))
    made = dataclasses.make_dataclass(cls.name, fields, kw_only=True)
    about = textwrap.dedent(inspect.getdoc(cls) or "").split("\n\n")[0]
    with raw_streams():
        config = (tyro.conf.FlagCreatePairsOff,)
        given: Any = tyro.cli(made, args=list(args), prog=prog, description=about, config=config)
    params = {name: getattr(given, flag) for name, flag in flag_of.items()}
    params = {k: _from_text(v) if _holds_method(types[k]) else v for k, v in params.items()}
    extra = common(**{f.name: getattr(given, f.name) for f in shared})
    return build({"role": cls.role, "name": cls.name, "params": params}), extra


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


def _as_text(value: Any) -> str:
    return value.label() if isinstance(value, Method) else str(value)


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
