"""`bands list` and `bands show`."""

from __future__ import annotations

import argparse
import inspect
import shlex
from typing import Any

from torchbands.core.method import Method
from torchbands.core.method_index import Entry
from torchbands.core.registry import build, entries
from torchbands.core.spec_text import spelled

from . import console
from .flags import Setting, settings

_NEEDS = {
    "gradients": "gradients through the model",
    "features": "the model's inner features",
    "weights": "the model's weights",
    "units": "the model's layers",
    "logits": "the model's outputs",
    "training-run": "to run the training itself",
    "poison-rate": "a guess of the share of poison",
    "target": "the suspected target class",
    "model": "a model trained on the data",
}
#: Columns of a terminal under which a list shows role, name and paper alone.
NARROW = 160
_USED = {"attack": "bands attack {}"} | dict.fromkeys(
    ("input-detector", "model-detector", "data-filter", "training", "repair", "aggregator"), "bands defend {} VICTIM"
)


def show_list(given: argparse.Namespace) -> int:
    """Every method, or those of one role."""
    found = entries(given.role)
    if given.json:
        console.print_json([_facts(entry) for entry in found])
        return 0
    columns: tuple[str, ...] = ("role", "name", "paper", "what it is")
    rows: list[tuple[str, ...]] = [(entry.role, entry.name, _marked(entry), entry.summary) for entry in found]
    to = console.out()
    if to.is_terminal and to.width < NARROW:
        columns, rows = columns[:3], [row[:3] for row in rows]  # `bands show NAME` says what it is
    console.print_table(columns, rows)
    return 0


def show(given: argparse.Namespace) -> int:
    """One method: what it is, needs, and may be set to."""
    made = build(given.name)
    cls = type(made)
    if given.json:
        told = {"doc": inspect.getdoc(cls) or "", "settings": _settings(made)}
        console.print_json(_facts(Entry.of(cls)) | told | {"spec": made.spec()})
        return 0
    to = console.out()

    def line(text: str = "", style: str = "") -> None:
        to.print(text, style=style or None, markup=False)

    line(f"{cls.name} · {cls.role}", "bold")
    line(cls.paper or "no paper")
    if cls.unreproduced:
        line(f"unreproduced: {cls.unreproduced}")
    line()
    line(inspect.getdoc(cls) or "(no description)")
    line()
    line("needs: " + (", ".join(_need(n) for n in cls.needs) or "nothing beyond the role's own inputs"))
    if found := settings(cls):
        line()
        columns = ("setting", "type", "default", *(["here"] if made != cls() else []), "meaning")
        rows = []
        for s in found:
            here = [_here(made, s)] if "here" in columns else []
            rows.append((f"--{s.name.replace('_', '-')}", s.type, _value(s.default), *here, s.about))
        console.print_table(columns, rows)
    if cls.role in _USED:
        alone = len([entry for entry in entries() if entry.name == cls.name]) == 1
        name = made.label() if alone else f"{cls.role}/{made.label()}"
        line()
        line(f"use it: {_USED[cls.role].format(shlex.quote(name))}")
    return 0


def _marked(entry: Entry) -> str:
    """Its paper, after the warning that must stand wherever its name does, however narrow the list is."""
    return ("[unreproduced] " if entry.unreproduced else "") + entry.paper


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "role": entry.role,
        "name": entry.name,
        "version": entry.version,
        "paper": entry.paper,
        "needs": list(entry.needs),
        "unreproduced": entry.unreproduced or None,
        "about": entry.summary,
        "module": entry.module,
    }


def _settings(made: Method) -> list[dict[str, Any]]:
    return [
        {"name": s.name, "type": s.type, "default": _plain(s.default), "about": s.about}
        | ({} if getattr(made, s.name) == s.default else {"here": _plain(getattr(made, s.name))})
        for s in settings(type(made))
    ]


def _here(made: Method, setting: Setting) -> str:
    """What a spec sets; empty where it is the default."""
    value = getattr(made, setting.name)
    return "" if value == setting.default else _value(value)


def _plain(value: Any) -> Any:
    return value.spec() if isinstance(value, Method) else list(value) if isinstance(value, tuple) else value


def _value(value: Any) -> str:
    return spelled(value)


def _need(need: str) -> str:
    kind, _, count = need.partition(":")
    return f"{count} clean labelled samples" if kind == "clean" else _NEEDS.get(kind, kind)
