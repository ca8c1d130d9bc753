"""Errors shown to users. Each says what was given, what was expected, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BandsError(Exception):
    """An error the user can fix: shown without a traceback at the command line.

    Args:
        message: what was given and what was expected.
        hint: what to type or do next.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(BandsError):
    """A value of the wrong shape, dtype, range or type."""


class BadSettings(InputError, ValueError):
    """Settings from which no network can be built, such as images smaller than its receptive field."""


class Unspecified(InputError):
    """The file is intact, but only the user can say what it is, such as which network its weights belong to."""


class Unsupported(InputError):
    """A legitimate input in an unsupported format: neither a finding nor an error. The hint gives an alternative."""


class Diverged(InputError):
    """Training diverged to NaN or infinity. In a sweep this is one cell's result and does not stop the sweep."""


class UnknownName(BandsError):
    """An unknown name; close matches are suggested."""

    def __init__(self, kind: str, given: str, known: Iterable[str], *, hint: str = "") -> None:
        known = sorted(set(known))
        close = difflib.get_close_matches(given.lower(), known, n=3, cutoff=0.5)
        said = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
        super().__init__(f"unknown {kind} {given!r}.{said}", hint=hint or f"known: {', '.join(known) or 'none'}")


class MissingExtra(BandsError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed", hint=f"install it with: pip install 'torchbands[{extra}]'")


class DataUnavailable(BandsError):
    """A data set is not cached and no source could be reached."""


class DamagedVictim(BandsError):
    """A victim directory with a missing, truncated or altered file."""


class UnsafeFile(BandsError):
    """A file refers to something that only the user may name: a function to run (`code`), or a file elsewhere."""

    def __init__(self, message: str, *, hint: str = "", code: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NotApplicable(Exception):
    """A method does not apply. This is recorded as a result; it is neither a crash nor averaged in."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
