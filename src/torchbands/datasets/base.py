"""The vocabulary of the data sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Progress = Callable[[int, int | None, str], None]
"""``progress(done, total, what)``: bytes done, bytes in all (None if unknown), and what is being fetched."""

Arrays = dict[str, npt.NDArray[Any]]
"""``train.images``, ``test.images``: uint8 (N, C, H, W); ``train.labels``, ``test.labels``: int64 (N,).

Of text, in place of images: ``train.text``: uint8, the UTF-8 bytes of all rows; ``train.ends``: int64 (N,), where each
row ends in them. A text set may have a ``dev`` part too."""

SPLITS = ("train", "test")


def silent(done: int, total: int | None, what: str) -> None:
    """A progress callback that does nothing."""


class Source(Protocol):
    """One source of a data set."""

    def describe(self) -> str:
        """One line for tables and error messages."""
        ...

    def fetch(self, target: Path, progress: Progress) -> Path:
        """Obtain and verify the raw files; returns the folder with them (``target`` or a folder of the user).

        Raises:
            DataUnavailable: with the reason in one line.
        """
        ...


@dataclass(frozen=True)
class DataSet:
    """A data set: its sources, how its files are decoded, and the expected result."""

    name: str
    sources: tuple[Source, ...]
    decode: Callable[[Path], Arrays]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    pins: Mapping[str, str]
    """sha256 of the decoded arrays (C order, labels as little-endian int64); the same whatever the source."""
    cite: str
    variants: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Where sources differ in how many training rows they hold: the pins by that number; no other number is accepted.
    A variant of no pins was verified by the files that it was decoded from alone."""

    def pinned(self, rows: int) -> Mapping[str, str] | None:
        """The pins of the arrays that have so many training rows; None where no variant has."""
        return {**self.pins, **self.variants[rows]} if rows in self.variants else None if self.variants else self.pins

    @property
    def kind(self) -> str:
        """ "image" or "text"; text has no shape."""
        return "image" if self.shape else "text"


def image_array(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint8 (N, H, W) or (N, H, W, C) to contiguous uint8 (N, C, H, W)."""
    if images.ndim == 3:
        images = images[..., None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.uint8)
