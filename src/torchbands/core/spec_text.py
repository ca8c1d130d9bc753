"""A method as reports print it, `i-bau(rounds=1)`: written, and read back.

Only literals are read: numbers, True, False, None, words, quoted texts, tuples, and methods spelled the same way.
Nothing is evaluated. What is read is a spec like any other: `registry.build` checks it, and where it came from.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from .errors import InputError

#: How deep methods and tuples may lie in each other.
DEEPEST = 40
_TOKEN = re.compile(
    r"""\s*(?: (?P<mark>[()\[\],=]) | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*") | (?P<word>[^\s()\[\],='"]+) )""",
    re.VERBOSE | re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z_./~][\w./~:+-]*", re.ASCII)
_NAMED: dict[str, Any] = {"True": True, "False": False, "None": None}
_NUMBER = re.compile(r"[+-]?(inf|nan|(\d+(_\d+)*\.?\d*|\.\d+)([eE][+-]?\d+)?)")
_EXAMPLE = "as reports print them: i-bau(rounds=1), or sgd(lr=0.1, schedule=cosine)"


def spelled(value: Any) -> str:
    """One setting of a method as it is printed, and as `read` takes it: a method, a tuple, a number or a text."""
    if callable(label := getattr(value, "label", None)):  # a method: what else is set to is plain
        return str(label())
    if isinstance(value, (tuple, list)):
        inner = ", ".join(spelled(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, str) and _BARE.fullmatch(value) and _word(value) == value:
        return value
    return repr(value)


def read(text: str) -> dict[str, Any]:
    """The spec, `{"name": ..., "params": {...}}`, of a method spelled as `Method.label` spells it.

    Raises InputError, with the place, for what is not spelled so.
    """
    reader = _Reader(text)
    word = reader.take("word", "a method's name")
    found = reader.method(word, 0)
    if reader.at < len(reader.tokens):
        raise reader.wrong("the end")
    return found


def name_of(text: str) -> str:
    """The name in front of the settings."""
    return text.partition("(")[0].strip()


class _Reader:
    """Tokens, and how far they have been read."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.tokens: list[tuple[str, str, int]] = []  # kind, as written, where it begins
        end, whole = 0, text.rstrip()
        while end < len(whole):
            match = _TOKEN.match(whole, end)
            if match is None or match.lastgroup is None:
                raise InputError(
                    f"cannot read {_near(text, end)}: a text in it has no closing quote", hint=f"methods are {_EXAMPLE}"
                )
            self.tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            end = match.end()

    def next(self, kind: str, written: str = "") -> bool:
        """Whether the next token is this one."""
        if self.at >= len(self.tokens):
            return False
        found, text, _ = self.tokens[self.at]
        return found == kind and written in ("", text)

    def take(self, kind: str, what: str, written: str = "") -> str:
        """The next token, which has to be this one."""
        if not self.next(kind, written):
            raise self.wrong(what)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def skip(self, mark: str) -> bool:
        """Pass a mark where it is the next token."""
        found = self.next("mark", mark)
        self.at += found
        return found

    def wrong(self, expected: str) -> InputError:
        """Says where it stopped, and what should stand there."""
        place = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        return InputError(
            f"cannot read {_near(self.text, place)}: expected {expected} there", hint=f"methods are {_EXAMPLE}"
        )

    def opens(self) -> bool:
        """Pass the bracket of the settings, right after the name: a title such as `digits (rows=9)` is no spec."""
        if not self.next("mark", "("):
            return False
        _, name, start = self.tokens[self.at - 1]
        if start + len(name) != self.tokens[self.at][2]:
            raise self.wrong("'(' right after the name, or the end")
        return self.skip("(")

    def method(self, name: str, depth: int) -> dict[str, Any]:
        """The settings after a name, if any."""
        params: dict[str, Any] = {}
        if self.opens():
            while not self.skip(")"):
                setting = self.take("word", "the name of a setting, or ')'")
                self.take("mark", f"'=' and the value of {setting}", "=")
                if setting in params:
                    raise InputError(f"{setting} is set twice in {_near(self.text, 0)}", hint="say it once")
                params[setting.replace("-", "_")] = self.value(depth + 1)
                if not self.next("mark", ")"):
                    self.take("mark", "',' or ')'", ",")
        return {"name": name, "params": params}

    def text_at(self, token: str) -> str:
        """What a quoted text says: the token is one and nothing else, so that reading it computes nothing."""
        try:
            with warnings.catch_warnings(action="ignore"):  # of a path such as 'C:\data'
                return str(ast.literal_eval(token))
        except (SyntaxError, ValueError) as error:
            raise InputError(
                f"cannot read the text {_near(token, 0)}: {error.args[0]}", hint="write \\\\ for a backslash"
            ) from None

    def value(self, depth: int) -> Any:
        """A literal, a tuple or a method."""
        if depth > DEEPEST:
            raise InputError(f"{_near(self.text, 0)} lies more than {DEEPEST} deep", hint=f"methods are {_EXAMPLE}")
        for start, end in (("(", ")"), ("[", "]")):
            if self.skip(start):
                items = []
                while not self.skip(end):
                    items.append(self.value(depth + 1))
                    if not self.next("mark", end):
                        self.take("mark", f"',' or '{end}'", ",")
                return items
        if self.next("text"):
            return self.text_at(self.take("text", "a text"))
        word = self.take("word", "a value")
        return self.method(word, depth) if self.next("mark", "(") else _word(word)


def _word(word: str) -> Any:
    """What a word without quotes means: a number, True, False, None, or itself."""
    if word in _NAMED:
        return _NAMED[word]
    if not _NUMBER.fullmatch(word):
        return word
    try:
        return int(word)
    except ValueError:
        return float(word)


def _near(text: str, place: int, most: int = 30) -> str:
    """The text with an arrow at a place, cut around it."""
    before, after = text[:place], text[place:]
    before = before if len(before) <= most else "…" + before[-most:]
    after = after if len(after) <= most else after[:most] + "…"
    return repr(f"{before}→{after}" if place else after)
