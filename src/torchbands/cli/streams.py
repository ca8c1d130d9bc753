"""stdout and stderr that escape control characters, so that no message can send commands to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from torchbands.core.words import escaped


class Shown:
    """A stream that escapes everything written to it except line feeds and tabs."""

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    def write(self, text: str) -> int:
        self.beneath.write(escaped(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)


def raw(stream: TextIO) -> TextIO:
    """The underlying stream, for output with colours whose text was escaped before."""
    return stream.beneath if isinstance(stream, Shown) else stream


@contextmanager
def shown_streams() -> Iterator[None]:
    """Escape everything printed within the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, Shown(raw(before[0]))), cast(TextIO, Shown(raw(before[1])))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def raw_streams() -> Iterator[None]:
    """Escape nothing within the block: the parser's help has colours, and its errors repeat what was typed."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = raw(before[0]), raw(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
