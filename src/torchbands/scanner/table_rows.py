"""A table of numbers with a column of labels, from a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from torchbands.core.data import Data
from torchbands.core.errors import InputError

from .array_rows import numbers, table_of
from .rows import MOST_CLASSES, Rows

#: Columns that are labels by their name. A larger file is refused.
LABELS, MOST_BYTES = ("label", "class", "target", "y"), 2 << 30


def read_table(path: Path, label: str | None = None) -> Rows:
    """A CSV (or TSV) file of numbers: one row a sample, one column the label, which may be text.

    A first line with a cell that is no number, labels aside, is the heading. The label column is the one named by
    `label`, else one called label, class, target or y, else the last. Labels are numbered in sorted order, as numbers
    where they all are. Field ranges are those of this table.

    Raises InputError with the line for what is no number or of another length.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}", hint="save it as .npz")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",") if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None
    if not lines:
        raise InputError(f"{path} holds no rows")
    width = len(lines[0])
    if width < 2:
        raise InputError(f"{path} has {width} column, expected features and a label", hint="separate cells by commas")
    for number, row in enumerate(lines, 1):
        if len(row) != width:
            raise InputError(f"{path}: row {number} has {len(row)} cells, the first has {width}")
    titles, body = (lines[0], lines[1:]) if _is_heading(lines) else ([], lines)
    at = _label_column(titles, width, label, path)
    if not body:
        raise InputError(f"{path} has a heading but no rows")
    titles = titles or [f"column {i}" for i in range(width)]
    cells = [[cell for i, cell in enumerate(row) if i != at] for row in body]
    try:
        x = np.asarray(cells, dtype=np.float64)
    except ValueError:
        raise InputError(_not_a_number(cells, titles[:at] + titles[at + 1 :], path)) from None
    names, y = _labels([row[at].strip() for row in body], path)
    features = numbers(torch.from_numpy(x), path)
    schema = table_of(features, titles[:at] + titles[at + 1 :])
    note = f"labels are column {titles[at]!r}"
    return Rows(Data(features, y), schema, names, path.name, notes=(note,))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_heading(lines: list[list[str]]) -> bool:
    """No cell of the first line is a number, or one is not where the second line has one."""
    if not any(_is_number(c) for c in lines[0]):
        return True
    second = lines[1] if len(lines) > 1 else []
    return any(not _is_number(a) and _is_number(b) for a, b in zip(lines[0], second))


def _label_column(titles: list[str], width: int, label: str | None, path: Path) -> int:
    plain = [title.strip() for title in titles]
    if label is not None:
        if label not in plain:
            raise InputError(f"{path} has no column {label!r}", hint=f"columns: {', '.join(plain) or 'no heading'}")
        return plain.index(label)
    lower = [title.lower() for title in plain]
    return next((lower.index(name) for name in LABELS if name in lower), width - 1)


def _labels(cells: list[str], path: Path) -> tuple[tuple[str, ...], torch.Tensor]:
    found = set(cells)
    if len(found) < 2:
        raise InputError(f"{path} holds one class only, {cells[0]!r}; at least two are needed")
    if len(found) > MOST_CLASSES or len(found) > max(10, len(cells) // 2):
        raise InputError(f"{path}: {len(found)} labels for {len(cells)} rows: is this the label column?")
    names = sorted(found, key=float) if all(map(_is_number, found)) else sorted(found)
    number = {name: i for i, name in enumerate(names)}
    return tuple(names), torch.tensor([number[cell] for cell in cells])


def _not_a_number(cells: list[list[str]], titles: list[str], path: Path) -> str:
    for row, line in enumerate(cells, 1):
        for title, cell in zip(titles, line):
            if not _is_number(cell):
                return f"{path}: {cell[:40]!r} in column {title!r}, row {row} of the body, is no number"
    return f"{path} holds cells that are no numbers"
