"""What a spec that was read from a file may name outside itself: nothing that the user did not type.

A card, a grid or a guard comes from anybody. Numbers, choices from a closed list and parts that are methods are plain
settings. A free text could name a function, a file or a data set, so a method says of each of its own which it is
(`Method.free`); one that is not declared counts as code.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .errors import DataUnavailable, UnsafeFile
from .method import Method, hints_of
from .words import shown

_ALLOWED: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


@contextmanager
def allowing(*values: str) -> Iterator[None]:
    """Within the block, files may name these functions ("package.module:function") and files or folders.

    They are the user's own words, from a command line or from Python; never read them from a file.
    """
    token = _ALLOWED.set(_ALLOWED.get() | set(values))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def is_free(hint: Any) -> bool:
    """Whether a setting of this type may hold any text."""
    if typing.get_origin(hint) is typing.Literal:
        return False
    return hint in (str, Any) or any(is_free(arm) for arm in typing.get_args(hint) if arm is not Ellipsis)


def kind_of(cls: type[Method], name: str) -> str:
    """ "text", "file" or "code": what a free text setting of a method names."""
    for base in cls.__mro__:
        if name in (declared := vars(base).get("free", {})):
            return "file" if isinstance(declared[name], tuple) else str(declared[name])
    return "code"


def _no_file(cls: type[Method], name: str) -> tuple[str, ...]:
    """Values of a setting that names a file which are names of something else."""
    declared = next((vars(base)["free"][name] for base in cls.__mro__ if name in vars(base).get("free", {})), ())
    return declared if isinstance(declared, tuple) else ()


def named_by(method: Method) -> tuple[str, ...]:
    """The functions and files that a method and its parts name: what its own victim's card may name too."""
    found: list[str] = []
    cls = type(method)
    for name, hint in hints_of(cls).items():  # type: ignore[arg-type]  # classes are hashable
        value = getattr(method, name)
        if isinstance(value, Method):
            found += named_by(value)
        elif isinstance(value, str) and value and is_free(hint) and kind_of(cls, name) != "text":
            found.append(value)
    return tuple(found)


def refuse_outside(cls: type[Method], name: str, value: Any, default: Any, file: Path) -> None:
    """Raises UnsafeFile where `file` sets a free text of a method to something that only the user may name."""
    kind = kind_of(cls, name)
    if (
        kind == "text"
        or value == default
        or value in _no_file(cls, name)
        or (kind == "file" and _inside(value, file.parent))
    ):
        return
    told = str(value)
    if told in _ALLOWED.get() or (kind == "file" and _below(value, _ALLOWED.get())):
        return
    what = "a function to be run" if kind == "code" else "a file or folder outside its own"
    raise UnsafeFile(
        f"{shown(file)} names {what}: {cls.name}.{name} is {shown(repr(value), 120)}. "
        "Nothing that is read from a file is run or looked up elsewhere",
        hint="with --allow NAME the command would "
        + ("import that name and run it, with your rights" if kind == "code" else "read what lies there")
        + ": type it for what you wrote yourself, and for nothing that came with the folder "
        "(in Python: with torchbands.allowing(NAME):)",
        code=kind == "code",
    )


def refuse_absent(made: Method, file: Path) -> None:
    """Raises DataUnavailable where a method that `file` names would have to fetch something first."""
    if missing := made.absent():
        raise DataUnavailable(
            f"{shown(file)} asks for {missing}, which is not on this machine; nothing is fetched because a file asks",
            hint=f"if you want it: bands data get {missing.rsplit(' ', 1)[-1]}",
        )


def _below(value: Any, allowed: frozenset[str]) -> bool:
    """Whether a path lies in a folder that the user typed; links in his own folder are his own."""
    return any(Path(str(value)).expanduser().resolve().is_relative_to(Path(a).expanduser().resolve()) for a in allowed)


def _inside(value: Any, folder: Path) -> bool:
    """Whether a path, and every link below it, stays in a folder."""
    try:
        top, at = folder.expanduser().resolve(), Path(value).expanduser().resolve()
        links = (p for p in at.rglob("*") if p.is_symlink()) if at.is_dir() else ()
        return at.is_relative_to(top) and all(p.resolve().is_relative_to(top) for p in links)
    except (OSError, ValueError, TypeError, RuntimeError):
        return False
