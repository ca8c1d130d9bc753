"""Rows of cells, as every kind of table gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: A larger file (unpacked) is refused.
MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class Cells:
    """Rows of equal length, the line of the file that each ends on, and what was assumed. `classes` are the names of
    labels by their column's title, in the order that the file itself gives them."""

    rows: list[list[str]]
    lines: list[int]
    notes: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
