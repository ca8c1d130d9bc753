"""A stand-in for the child process that opens torch files, in the tests that open many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchbands.scanner.opening import Limits
from torchbands.scanner.opening.process import ChildRefusal
from torchbands.scanner.opening.read_torch import extract


class InProcess:
    """The child's work without the seconds that a process takes to begin; other tests start real ones."""

    def __init__(self, job: str, folder: Path, limits: Limits) -> None:
        assert job == "torch"
        self.limits = limits

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        try:
            return extract({**job, "megabytes": self.limits.megabytes})
        except Exception as error:
            raise ChildRefusal(str(error)) from None
