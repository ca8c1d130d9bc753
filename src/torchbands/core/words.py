"""Names and texts of others, made fit to be shown: one rule for every output.

A file's name, a label or a row of text may hold what a terminal obeys, what turns text around, or what a spreadsheet
takes for a formula. Such characters are written as escapes, so that they are seen and do nothing.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Iterable
from typing import Any

#: Controls (with ANSI escapes), formats (with bidi and zero-width marks), surrogates, line separators, non-characters.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"}
#: How a cell begins that a spreadsheet takes for a formula. A number is none.
_FORMULA = re.compile(r"\s*[=+\-@|%]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def escaped(text: str, keep: str = "") -> str:
    """Text in which every character that does something in place of being seen is an escape, such as \\x1b.

    keep: characters that stay all the same, such as a line feed in a text of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNSEEN else _escape(c) for c in text)


def shown(text: object, most: int = 600) -> str:
    """One line of visible characters, cut where it is longer than `most`; line breaks are spaces."""
    whole = str(text)
    cut = re.sub(r"[\n\r\t]", " ", whole[: most + 1])
    out = " ".join(escaped(cut).split())
    return out if len(whole) <= most and len(out) <= 4 * most else out[:most] + "…"


def csv_cell(value: object) -> str:
    """A cell of a CSV file: escaped, and no formula to a spreadsheet, for an apostrophe stands before one."""
    text = escaped(str(value))
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json_text(value: Any, *, allow_nan: bool = True) -> str:
    """JSON that reads back as it was; what is not seen is one of JSON's own escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=allow_nan, default=str)
    if text.isascii():
        return text
    hidden = {c for c in set(text) if c != "\n" and unicodedata.category(c) in _UNSEEN}
    return text.translate({ord(c): json.dumps(c)[1:-1] for c in hidden})


def quoted(word: str) -> str:
    """A word of a command as a shell reads it back; what is not seen is written by its bytes, as in $'a\\x1bb'."""
    if all(unicodedata.category(c) not in _UNSEEN for c in word):
        return shlex.quote(word)
    made = (f"\\{c}" if c in "\\'" else c if unicodedata.category(c) not in _UNSEEN else _bytes(c) for c in word)
    return f"$'{''.join(made)}'"


def command_line(words: Iterable[str]) -> str:
    """A command of these words, to be pasted."""
    return " ".join(map(quoted, words))


def _bytes(c: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))


def in_words(seconds: float) -> str:
    """'under 1 s', '40 s', '3 min', '2 h 10 min', '3 days'."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 and minutes < 600 else f"{round(minutes / 60)} h"
    return f"{round(minutes / 1440)} days"


def in_about(seconds: float) -> str:
    """The same as an estimate: 'about 40 s', or 'under 1 s', which says enough."""
    return in_words(seconds) if seconds < 1 else f"about {in_words(seconds)}"


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
