"""One detector at a time: what a detector raises is told in its line of the ledger, and the scan goes on."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from torchbands.core.budget import refused
from torchbands.core.errors import NotApplicable

_LOG = logging.getLogger(__name__)
#: Of an error's message, at most so much is told: some libraries put whole tensors into theirs.
_LONGEST = 300


class Attempt:
    """`with Attempt() as tried:` around a detector's work.

    Attributes:
        reason: why there is no result; empty where the work ended.
        failed: whether it raised an error, which leaves the question open; a detector that declines (NotApplicable) has
            said that it is not the one to ask.

    Only KeyboardInterrupt and SystemExit go through. Panics of libraries, which are no Exception, do not.
    """

    def __init__(self) -> None:
        self.reason, self.failed = "", False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
            return False
        if isinstance(error, NotApplicable):
            self.reason = error.reason
            return True
        _LOG.debug("a detector failed", exc_info=error)
        self.failed, self.reason = True, _told(error)
        return True


class Failures:
    """What detectors raised on reference models: detector -> a reason for each model."""

    def __init__(self) -> None:
        self.reasons: dict[str, list[str]] = {}

    def note(self, detector: str, reason: str) -> None:
        self.reasons.setdefault(detector, []).append(reason)

    def add(self, others: Failures) -> None:
        for detector, reasons in others.reasons.items():
            self.reasons.setdefault(detector, []).extend(reasons)

    def said(self, detector: str) -> str:
        """In a clause; empty where nothing failed."""
        found = self.reasons.get(detector, [])
        return f"{detector} failed on {len(found)} of the reference models ({found[0]})" if found else ""


def _told(error: BaseException) -> str:
    said = " ".join(str(error).split())
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."
    if refused(error):
        return f"memory ran out: {said or type(error).__name__}"
    return f"{type(error).__name__}{f': {said}' if said else ''}"
