"""The errors a user may meet. Each says what was given, what was expected, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BandsError(Exception):
    """A mistake the user can mend: shown without a traceback at the command line.

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
    """Settings of which no network can be built, such as images smaller than it can read."""


class Unspecified(InputError):
    """Something is whole and readable, and only its user can say what it is: which network its weights are of."""


class Unsupported(InputError):
    """Something ordinary that is not read here: no finding and no mistake. The hint says what to do instead."""


class Diverged(InputError):
    """Training left the finite numbers: one result of a sweep, not its end."""


class UnknownName(BandsError):
    """A name that is in no registry; close names are suggested."""

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
    """No source of a data set could be reached."""


class DamagedVictim(BandsError):
    """A victim directory with a missing, truncated or altered file."""


class UnsafeFile(BandsError):
    """A file names what only the user may name: a function to be run (`code`), or a file elsewhere."""

    def __init__(self, message: str, *, hint: str = "", code: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NotApplicable(Exception):
    """A method declines: a result to be recorded in the table, never a crash and never averaged in."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
