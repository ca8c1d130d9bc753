"""Names to methods.

Built-in methods are known from their source (`method_index`) and imported when they are used; others are found through
the entry points `torchbands.methods`, and a broken plug-in warns and never kills its host.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import sys
import types
import typing
import warnings
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

from . import method_index
from .errors import InputError, UnknownName
from .method import METHODS as _methods
from .method import RESERVED, Method, hints_of
from .method_index import Entry
from .outside import is_free, refuse_absent, refuse_outside
from .spec_text import name_of, read

ENTRY_POINTS = "torchbands.methods"


@lru_cache(maxsize=1)
def discover() -> None:
    """Import every built-in method module and every installed plug-in, once."""
    for folder in method_index.FOLDERS:
        _import_tree(f"torchbands.{folder}")
    discover_plug_ins()


@lru_cache(maxsize=1)
def discover_plug_ins() -> None:
    """Import every installed plug-in, once. Names of built-in methods are taken, imported or not."""
    RESERVED.update({(entry.role, entry.name): entry.module for entry in _built_in()})
    for point in plug_ins():
        try:
            importlib.import_module(point.value.split(":")[0])
        except Exception as error:
            warnings.warn(f"plug-in {point.name} ({point.value}) could not be loaded: {error!r}", stacklevel=2)


def plug_ins() -> list[EntryPoint]:
    """Entry points of what is installed. A folder is not installed by being the current one, as `python -m` has it."""
    meant = {Path(p).resolve() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p}
    here = Path.cwd()
    path = [p for p in sys.path if p and (Path(p).resolve() != here or here in meant)]
    found: dict[str, list[EntryPoint]] = {}
    for package in distributions(path=path):  # the first of a name is the one that is imported
        found.setdefault(package.name, [p for p in package.entry_points if p.group == ENTRY_POINTS])
    return [point for points in found.values() for point in points]


def _import_tree(name: str) -> None:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, prefix=f"{name}."):
        importlib.import_module(found.name)


def _built_in() -> tuple[Entry, ...]:
    entries = method_index.built_in()
    if not entries:  # installed without source
        discover()
    return entries


def _known() -> dict[tuple[str, str], str]:
    """The role and name of every method, and the module that defines it."""
    discover_plug_ins()
    built_in = {(entry.role, entry.name): entry.module for entry in _built_in()}
    return built_in | {key: cls.__module__ for key, cls in _methods.items()}


def _of_role(role: str | None) -> list[tuple[str, str]]:
    known = _known()
    if role is not None and role not in {r for r, _ in known}:
        raise UnknownName("role", role, {r for r, _ in known})
    return sorted(key for key in known if role in (None, key[0]))


def entries(role: str | None = None) -> list[Entry]:
    """Every method of one role (or all), by role and name, without importing the built-in ones."""
    keys = _of_role(role)
    read = {(entry.role, entry.name): entry for entry in _built_in()}
    return [Entry.of(_methods[key]) if key in _methods else read[key] for key in keys]


def roles() -> list[str]:
    """Every role that has at least one method."""
    return sorted({role for role, _ in _known()})


def listing(role: str | None = None) -> list[type[Method]]:
    """Method classes of one role (or all), by name."""
    return [_imported(key) for key in _of_role(role)]


def _imported(key: tuple[str, str]) -> type[Method]:
    if key not in _methods:
        importlib.import_module(_known()[key])
    return _methods[key]


def find(name: str, role: str | None = None) -> type[Method]:
    """The class of a name. `role/name` also works; an ambiguous or unknown name is an error that helps."""
    if (role, name) in _methods:
        return _methods[(role or "", name)]
    known = _known()
    if "/" in name and name.split("/", 1)[0] in ({r for r, _ in known} if role is None else {role}):
        role, name = name.split("/", 1)
    found = [key for key in known if key[1] == name and role in (None, key[0])]
    if not found:
        names = [n for r, n in known if role in (None, r)]
        raise UnknownName(role or "method", name, names, hint="see them all with: bands list")
    if len(found) > 1:
        options = ", ".join("/".join(key) for key in found)
        raise InputError(f"{name!r} names {len(found)} methods: {options}", hint="say which, role first")
    return _imported(found[0])


def build(
    spec: str | Mapping[str, Any] | Method, role: str | None = None, *, origin: str | Path | None = None
) -> Method:
    """A method from its name, from what reports print of it (`i-bau(rounds=1)`), from its spec, or itself.

    Args:
        origin: the file that the spec was read from. Such a spec may name no function, no file outside that file's own
            folder, and nothing that would have to be fetched, but for what the user typed himself (`core.outside`).

    Raises UnsafeFile, or DataUnavailable, for a spec from a file that names such a thing, UnknownName for an unknown
    method or setting (with a suggestion), InputError for a value of the wrong type, a text that spells no method, or a
    spec written by another version of the method.
    """
    if isinstance(spec, Method):
        return spec
    file = None if origin is None else Path(origin)
    made = _made(spec, role, file)
    if file is not None:
        refuse_absent(made, file)
    return made


def _around(text: str, role: str | None) -> str | Mapping[str, Any]:
    """The spec of a name such as `federated/vision/gtsrb`, of a method around any other; another text as it is."""
    name = name_of(text)
    outer, _, inner = name.partition("/")
    known = _known()
    if role is None or (role, name) in known or (role, outer) not in known or (role, inner) not in known:
        return text
    setting = find(outer, role).around
    if not setting:
        return text
    return {"name": outer, "params": {setting: inner, **(read(text)["params"] if "(" in text else {})}}


def _made(spec: str | Mapping[str, Any], role: str | None, file: Path | None) -> Method:
    if isinstance(spec, str):
        spec = _around(spec, role)
    if isinstance(spec, str):
        named = find(name_of(spec), role)  # a wrong name is told first: what is no method's is often a file's
        if "(" not in spec:
            return named()
        spec = read(spec)
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise InputError(f"a method spec is a name or an object with 'name', got {spec!r}")
    cls = find(str(spec["name"]), str(spec["role"]) if "role" in spec else role)
    if spec.get("version", cls.version) != cls.version:
        raise InputError(
            f"{cls.name} spec is of version {spec['version']}, installed is {cls.version}",
            hint="numbers may differ between versions: run it again, or install the version that wrote it",
        )
    extra = {k: v for k, v in spec.items() if k not in ("role", "name", "version", "params")}
    params = spec.get("params", {})
    if not isinstance(params, Mapping):
        raise InputError(f"params of {cls.name} are an object, got {type(params).__name__}")
    return cls(**{str(k): _typed(cls, str(k), v, file) for k, v in {**extra, **params}.items()})


def _typed(cls: type[Method], name: str, value: Any, file: Path | None) -> Any:
    hints = hints_of(cls)  # type: ignore[arg-type]  # classes are hashable; mypy reads the instance's __hash__
    if name not in hints:
        raise UnknownName(f"setting of {cls.name}", name, hints)
    made = _coerce(value, hints[name], f"{cls.name}.{name}", file)
    if file is not None and is_free(hints[name]):
        refuse_outside(cls, name, made, _default(cls, name), file)
    return made


def _default(cls: type[Method], name: str) -> Any:
    field = next(f for f in dataclasses.fields(cls) if f.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _meant(value: Any, hint: type[Method]) -> str | None:
    """The role of the setting, where a name is of it: two roles may share a name."""
    return hint.role if isinstance(value, str) and (hint.role, name_of(value)) in _known() else None


def _coerce(value: Any, hint: Any, where: str, file: Path | None) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for arm in sorted(args, key=lambda a: a is float):
            try:
                return _coerce(value, arm, where, file)
            except InputError:
                continue
    elif origin is typing.Literal:
        if value in args:
            return value
        if isinstance(value, str):
            raise UnknownName(f"value of {where}", value, [str(a) for a in args])
    elif origin is tuple and isinstance(value, (list, tuple)):
        arms = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(arms) == len(value):
            return tuple(_coerce(v, a, where, file) for v, a in zip(value, arms, strict=True))
    elif hint is type(None) and value is None:
        return None
    elif isinstance(hint, type) and issubclass(hint, Method):
        made = build(value, _meant(value, hint), origin=file)
        if isinstance(made, hint):
            return made
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, bool):
        pass
    elif (isinstance(hint, type) and isinstance(value, hint)) or hint is Any:
        return value
    raise InputError(f"{where} is {hint if origin else getattr(hint, '__name__', hint)}, got {value!r}")
