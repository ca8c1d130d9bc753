"""Which kind of sample something is: every registered modality is asked, those of plug-ins after the built-in ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .data import Batch
from .modality import Layout, Modality
from .registry import listing


def kinds() -> list[type[Modality]]:
    """Every kind of sample there is. Built-in ones come first: no plug-in changes how a table or an image is read."""
    found = [cls for cls in listing(Modality.role) if issubclass(cls, Modality)]
    return sorted(found, key=lambda cls: not cls.__module__.startswith("torchbands."))


def of_samples(first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Modality | None:
    """The kind of some raw rows, or None where no kind knows them.

    Args:
        first: a few of them. every: all of them, where words or ranges may be told from them. titles: of columns.
    """
    return next((found for kind in kinds() if (found := kind.of_samples(first, every, titles)) is not None), None)


def reader_of(path: Path) -> type[Modality] | None:
    """The kind whose own format a file or folder has, or None."""
    return next((kind for kind in kinds() if kind.reads(path)), None)


def of_input(shape: Sequence[Any], given: Modality | None = None) -> tuple[Modality | None, Layout | None]:
    """What the shape of a graph's input says of its rows: their kind, and their layout where it is not the usual one.

    Args:
        shape: whole numbers, or names of what may vary. given: where the kind is known, only that kind is asked.
    """
    for kind in kinds() if given is None else [type(given)]:
        modality, layout = kind.of_input(shape)
        if modality is not None or layout is not None:
            return modality, layout
    return None, None
