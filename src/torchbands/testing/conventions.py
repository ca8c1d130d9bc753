"""The rules of form: what every method must be, whatever its role."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing

from torchbands.core.errors import InputError
from torchbands.core.method import DEFENSE_ROLES, NEEDS, Method
from torchbands.core.registry import build, find
from torchbands.testing.fixtures import demand

#: Roles whose methods come from a paper and say how they differ from it.
PUBLISHED = ("attack", *DEFENSE_ROLES)
#: Rows of a table that no paper stands behind.
BASELINES = ("clean",)
#: What a defender cannot know. A method that is given it is an oracle and says so in its name.
ORACLE_NEEDS = ("poison-rate", "target")


def check_form(cls: type[Method]) -> None:
    """Raise ContractError where a class breaks a rule of form."""
    demand(bool(cls.name and cls.role), "has no name or role: decorate it with @method('name')")
    demand(find(cls.name, cls.role) is cls, "is not what the registry finds under its name")
    made = _default(cls)
    _frozen(made)
    _spec(made)
    _documented(cls)
    _needs(cls)


def _default(cls: type[Method]) -> Method:
    try:
        return cls()
    except Exception as error:
        demand(False, f"cannot be constructed without arguments: {error!r}")
        raise


def _frozen(made: Method) -> None:
    for name in [f.name for f in dataclasses.fields(made)] or ["anything"]:
        try:
            setattr(made, name, None)
        except dataclasses.FrozenInstanceError:
            continue
        demand(False, f"is not frozen: {name} could be set")


def _spec(made: Method) -> None:
    cls = type(made)
    try:
        typing.get_type_hints(cls)
        back = build(json.loads(json.dumps(made.spec(), allow_nan=False)))
    except (InputError, TypeError, ValueError, NameError) as error:
        demand(False, f"spec does not round-trip through JSON: {error}")
        raise
    demand(type(back) is cls and back == made, f"spec came back from JSON as {back!r}, not {made!r}")
    demand(back.key() == made.key(), "key changed on the way through JSON")
    demand(made.label() == cls.name, f"label of the default is {made.label()!r}, not {cls.name!r}")
    demand(f"{cls.__name__}(" in repr(made), f"repr is {made!r}")


def _documented(cls: type[Method]) -> None:
    doc = cls.__doc__ or ""
    first = doc.strip().split("\n", 1)[0]
    demand(bool(first) and not doc.startswith(f"{cls.__name__}("), "has no docstring of its own")
    demand(len(first) <= 120, f"first line of the docstring is {len(first)} characters long, at most 120 fit a table")
    if cls.role in PUBLISHED and cls.name not in BASELINES:
        demand(bool(cls.paper), "names no paper: @method(..., paper='Authors, venue year, arXiv:id')")
        whole = doc + (sys.modules[cls.__module__].__doc__ or "")
        demand(
            "Deviations" in whole, "docstring has no 'Deviations from the paper: ...' (write 'none' if there are none)"
        )


def _needs(cls: type[Method]) -> None:
    for need in cls.needs:
        kind, _, count = need.partition(":")
        demand(kind in NEEDS, f"need {need!r} is none of {', '.join(NEEDS)}")
        demand(kind != "clean" or count.isdigit(), f"need {need!r} says no number: 'clean:200'")
        if kind in ORACLE_NEEDS and cls.role in DEFENSE_ROLES:
            demand("oracle" in cls.name, f"is given {kind!r}, which no defender knows: put 'oracle' in its name")
