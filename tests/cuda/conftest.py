"""The same tests on a CUDA device and, so that they do not rot where there is none, a few of them on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

_LAST = ["cpu"]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put everything on a device; models that are kept in the process and are on another one are forgotten."""

    def use(device: str) -> None:
        if device != _LAST[0]:
            _forget()
        _LAST[0] = device
        monkeypatch.setenv("TORCHBANDS_DEVICE", device)

    yield use


def _forget() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("torchbands."):
            for held in list(vars(module).values()):
                if callable(getattr(held, "cache_clear", None)):
                    held.cache_clear()
