"""Weights drawn anew in a module that is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def redraw(module: nn.Module) -> list[str]:
    """Draw every layer that can draw itself again, in place, from torch's global generator.

    Returns the names of parameters that no layer draws, such as a class token that a constructor filled: they keep
    their values.
    """
    drawn = set[int]()
    for layer in module.modules():
        if (reset := _reset_of(layer)) is not None:
            reset()
            drawn |= {id(p) for p in layer.parameters(recurse=False)}
    return [name for name, p in module.named_parameters() if id(p) not in drawn]


def _reset_of(layer: nn.Module) -> Callable[[], Any] | None:
    # attention of torch itself has the method under a private name alone
    names = ("reset_parameters",) + (("_reset_parameters",) if isinstance(layer, nn.MultiheadAttention) else ())
    return next((reset for name in names if callable(reset := getattr(layer, name, None))), None)
