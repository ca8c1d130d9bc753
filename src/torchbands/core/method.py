"""A Method: a frozen dataclass of plain hyper-parameters with a registered name, and nothing else.

It holds no data, model, path, device or logger. From that follow its repr, JSON spec, cache key, sweep axis, CLI flags
and row in the docs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from .errors import InputError, UnknownName
from .spec_text import spelled

Spec = dict[str, Any]
#: Setting -> what its free text names.
Free = Mapping[str, str | tuple[str, ...]]

#: What a method may declare that it must be given. "clean:N" asks for N clean labelled samples.
NEEDS = (
    *("gradients", "features", "weights", "units", "logits", "model"),
    *("clean", "training-run", "poison-rate", "target"),
)
#: Roles whose methods defend.
DEFENSE_ROLES = ("input-detector", "model-detector", "data-filter", "training", "repair", "aggregator")


@dataclass(frozen=True)
class Method:
    """Base of everything that has a name and a spec. Subclass a role (Attack, Repair, ...), not this."""

    role: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    #: The setting that another method of the role is put into: `NAME/OTHER` then means NAME(setting=OTHER).
    around: ClassVar[str] = ""
    #: Why its numbers stay far from its paper's, in words; empty where nothing of the kind is known.
    unreproduced: ClassVar[str] = ""
    #: What each setting of free text names: "text" (nothing), "file", or the names that are no file. One that is not
    #: declared counts as code, and no file that is read may set it: see `core.outside`.
    free: ClassVar[Free] = {}

    def spec(self) -> Spec:
        """JSON-ready description that `registry.build` turns back into an equal method."""
        params = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.init and f.compare}
        return {"role": self.role, "name": self.name, "version": self.version, "params": params}

    def key(self) -> str:
        """12 hex digits that change when the spec or the version does."""
        return key_of(self.spec())

    def but(self, **changes: Any) -> Self:
        """A copy with some hyper-parameters changed; an unknown one is refused with a suggestion."""
        known = [f.name for f in dataclasses.fields(self) if f.init]
        for given in changes:
            if given not in known:
                raise UnknownName(f"setting of {self.name}", given, known)
        return dataclasses.replace(self, **changes)

    def label(self) -> str:
        """The name with every setting that differs from its default: a row title that `registry.build` reads back."""
        changed = []
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if not (f.init and f.compare) or (f.default is not dataclasses.MISSING and value == f.default):
                continue
            if f.default_factory is not dataclasses.MISSING and value == f.default_factory():
                continue
            changed.append(f"{f.name}={spelled(value)}")
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def absent(self) -> str:
        """What must be downloaded before use, with its `bands data` name last; empty if nothing is missing."""
        return ""

    @classmethod
    def clean_needed(cls) -> int:
        """How many clean labelled samples it asks for (0: none)."""
        for need in cls.needs:
            if need.startswith("clean:"):
                return int(need.split(":")[1])
        return 0


#: Every method class that was imported, by role and name.
METHODS: dict[tuple[str, str], type[Method]] = {}
#: Names that are taken by methods that may not be imported yet, with the modules that define them.
RESERVED: dict[tuple[str, str], str] = {}
M = TypeVar("M", bound=Method)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def method(
    name: str, *, paper: str = "", needs: tuple[str, ...] = (), version: int = 1
) -> Callable[[type[M]], type[M]]:
    """Make a class a registered Method: `@method("badnets", paper="Gu et al., 2017, arXiv:1708.06733")`."""
    for need in needs:
        if need.split(":")[0] not in NEEDS:
            raise UnknownName("need", need, NEEDS)

    def wrap(cls: type[M]) -> type[M]:
        made = dataclass(frozen=True, kw_only=True)(cls)
        made.name, made.paper, made.needs, made.version = name, paper, needs, version
        register(made)
        return made

    return wrap


def register(cls: type[Method]) -> None:
    """Register a method class; two modules may not register the same (role, name)."""
    key = (cls.role, cls.name)
    old = METHODS.get(key)
    other = RESERVED.get(key, cls.__module__) if old is None else old.__module__
    if other != cls.__module__ or (old is not None and old.__qualname__ != cls.__qualname__):
        raise InputError(f"{cls.role} {cls.name!r} is registered twice: by {other} and {cls.__module__}")
    METHODS[key] = cls


@cache
def hints_of(cls: Any) -> dict[str, Any]:
    """Resolved type of every setting of a method class."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init and f.compare}


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return value.spec()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"a method's setting must be plain (number, text, tuple, method), got {type(value).__name__}")


def key_of(spec: Any) -> str:
    """12 hex digits of the canonical JSON of a spec."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
