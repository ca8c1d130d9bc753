"""What is wrong with a suspect, as alerts; and names from a suspect made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torchbands.core.errors import Unsupported
from torchbands.scanner.alerts import RULES, Alert, Level

CODE, MALFORMED, UNUSUAL, NON_FINITE = "BD-FILE-01", "BD-FILE-02", "BD-FILE-03", "BD-FILE-04"

_MARKUP = {ord(c): f"\\x{ord(c):02x}" for c in "<>&[]`"}


def shown(name: object, longest: int = 120) -> str:
    """A name or message of a suspect in quotes, with control characters, line breaks and markup escaped."""
    text = name if isinstance(name, str) else str(name)
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    return repr(text).translate(_MARKUP)


def plain(name: object) -> str:
    """Like `shown`, without quotes where nothing had to be escaped."""
    quoted = shown(name, 4096)
    return quoted[1:-1] if "\\" not in quoted else quoted


def begins(data: bytes | bytearray) -> str:
    """What a file that is of no known format looks like, in words."""
    head = bytes(data[:64])
    if not any(data[:4096]):
        return "begins with zeros alone"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "is text"  # of which nothing is shown: a link may lead to what is nobody's business
    return f"begins with the bytes {head[:8].hex(' ')}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few names of a suspect, in one line."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(shown(n, 80) for n in every[:most]) + more


def alert(rule: str, message: str, *, subject: object = "", level: Level | None = None, **facts: Any) -> Alert:
    """An alert of a rule, at the rule's own level unless another is given."""
    return Alert(rule, level or RULES[rule].level, message, plain(subject) if subject else "", facts)


class Refusal(Exception):
    """The suspect cannot be opened, for a reason that lies in the suspect: ends as an alert."""

    def __init__(self, rule: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.alert = alert(rule, message, **more)


def malformed(message: str, **more: Any) -> Refusal:
    """Not what its format promises."""
    return Refusal(MALFORMED, message, **more)


def cut_short(what: str) -> Unsupported:
    """A file that ends too early, as a download that broke off leaves it: nothing dangerous, and nothing to be read."""
    return Unsupported(f"{what}: the file is not whole", hint="download it, or save it, again, and compare its size")


def unusual(message: str, **more: Any) -> Refusal:
    """Has what a model file does not need."""
    return Refusal(UNUSUAL, message, **more)


def ambiguous(message: str, **more: Any) -> Refusal:
    """Can be read in two ways, so that what is scanned need not be what is loaded. Nothing of it is judged."""
    return Refusal(MALFORMED, f"{message}; nothing is judged", level="high", **more)
