"""Victims as directories: a card, weights and the trigger, each checked by sha256. No pickle is written or read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .victims import load, save, verify

__all__ = ["load", "save", "verify"]


def __getattr__(name: str) -> Any:
    """Loaded when first used: `zoo.files` is needed where torch is not."""
    if name in __all__:
        from . import victims

        return getattr(victims, name)
    raise AttributeError(f"module 'torchbands.zoo' has no attribute {name!r}")
