"""Commands that are printed with what was typed before, so that they work when they are pasted."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from torchbands.core.words import quoted

#: Flags of opening that a later command on the same suspect needs as well.
_OPENING = ("arch", "settings", "classes", "class_names", "labels", "output", "mean", "std", "size", "channels",
            "text_column", "label_column", "time_limit", "memory_limit")  # fmt: skip


def concrete(text: str, given: argparse.Namespace, suspect: str | None = None) -> str:
    """A remark whose commands name SUSPECT, CLEAN and DIR, with the user's own paths and flags in their place."""
    path = suspect or getattr(given, "suspect", None) or getattr(given, "like", None)
    if path:
        anew = ("labels", "class_names") if "--class-names" in text else ()  # what the command says itself
        named = f"{quoted(str(path))}{opening(given, anew)}"
        for place in ("bands scan model SUSPECT", "bands repair SUSPECT", "--like SUSPECT"):
            text = text.replace(place, place.replace("SUSPECT", named))
    if data := getattr(given, "data", None):
        text = text.replace("--data CLEAN", f"--data {quoted(data)}")
    return text


def opening(given: argparse.Namespace, leave: Iterable[str] = ()) -> str:
    """The flags of opening as they were typed, each with a space before it."""
    words: list[str] = []
    for name in _OPENING:
        value = getattr(given, name, None)
        if value is None or name in leave:
            continue
        words += [f"--{name.replace('_', '-')}", _typed(value)]
    if getattr(given, "allow_pickle", False) and "allow_pickle" not in leave:
        words.append("--allow-pickle")
    return "".join(f" {quoted(word)}" for word in words)


def rows(given: argparse.Namespace) -> str:
    """--data and --refs as they were typed."""
    data, refs = getattr(given, "data", None), getattr(given, "refs", None) or []
    words = [*(("--data", data) if data else ()), *(part for folder in refs for part in ("--refs", folder))]
    return "".join(f" {quoted(word)}" for word in words)


def _typed(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
