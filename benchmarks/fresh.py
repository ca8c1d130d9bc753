"""Receipts and the methods that are installed: numbers of another version of a method are not shown as this one's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torchbands.bench.grid import HARNESS
from torchbands.core.errors import BandsError
from torchbands.core.method import Method
from torchbands.core.registry import find


def versions(*methods: Method | Mapping[str, Any]) -> dict[str, int]:
    """What a receipt must say of the methods behind it: "role/name" to version, of those nested in them too."""
    return dict(sorted(_named([m.spec() if isinstance(m, Method) else m for m in methods])))


def stale(receipt: Any) -> list[str]:
    """Why a receipt may not be shown, one reason a line; empty where it may.

    Versions are read from every spec in it, and from every table named "methods" (as `versions` makes them).
    """
    out = [] if _says(receipt) else ["it does not say which versions of which methods made it"]
    for name, version in sorted(set(_named(receipt))):
        try:
            installed = find(name).version
        except BandsError:
            out.append(f"{name} is not installed")
            continue
        if version != installed:
            out.append(f"{name} was of version {version}, installed is {installed}")
    if isinstance(receipt, Mapping) and "grid" in receipt and receipt.get("harness", 0) != HARNESS:
        out.append(f"the harness was of version {receipt.get('harness', 0)}, installed is {HARNESS}")
    return out


def refuse_stale(receipts: Iterable[tuple[str, Any, str]]) -> None:
    """Of (file, receipt, command) each: end with what is stale, and with the command that makes it again."""
    lines = []
    for name, receipt, command in receipts:
        if found := stale(receipt):
            lines += [f"{name} is not shown:", *(f"  {why}" for why in found), f"  make it again: {command}"]
    if lines:
        raise SystemExit("\n".join(lines))


def _says(value: Any) -> bool:
    """Whether there is a table of methods, or a grid with their specs, anywhere in it."""
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("methods"), Mapping) or "grid" in value or any(_says(v) for v in value.values())


def _named(value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str) and isinstance(value.get("version"), int) and "role" in value:
            yield f"{value['role']}/{value['name']}", value["version"]
        for key, inner in value.items():
            if key == "methods" and isinstance(inner, Mapping):
                yield from ((str(name), int(version)) for name, version in inner.items())
            else:
                yield from _named(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _named(inner)
