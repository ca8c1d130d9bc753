"""A table of numbers with a column of labels, from a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.datasets.cells import headed, index_column, is_number, labelled, read_all
from torchbands.datasets.columns import doubtful, row_columns
from torchbands.modalities.tabular import Tabular

from .array_rows import numbers
from .rows import MOST_CLASSES, Rows

#: Columns that are labels by their name.
LABELS = ("label", "class", "target", "y")


def read_table(path: Path, label: str | None = None, files: Sequence[Path] = ()) -> Rows:
    """A CSV, TSV or Parquet file of numbers, or the files of a folder `path`.

    One row is a sample, one column the label, which may be text.
    A first line with a cell that is no number, labels aside, is the heading. The label column is the one named by
    `label`, else one called label, class, target or y, else the last. Labels are numbered in sorted order, as numbers
    where they all are. Columns that name or count the rows are left out, and told, as is a feature that may be a label.
    Field ranges are those of this table.

    Raises InputError with the line for what is no number or of another length.
    """
    cells_of = read_all(files or (path,))
    lines, notes = cells_of.rows, list(cells_of.notes)
    if not lines:
        raise InputError(f"{path} holds no rows")
    width = len(lines[0])
    if width < 2:
        raise InputError(f"{path} has {width} column, expected features and a label", hint="separate cells by commas")
    titles, body = (headed(lines[0], path), lines[1:]) if is_heading(lines) else ([], lines)
    at = _label_column(titles, width, label, path)
    if not body:
        raise InputError(f"{path} has a heading but no rows")
    index = index_column(titles, body)
    if index is not None:
        notes.append("the first column has no title and counts the rows: it is left out")
    titles = titles or [f"column {i}" for i in range(width)]
    order = cells_of.classes.get(titles[at], ())
    names, kept, numbered, said = labelled([row[at] for row in body], path, MOST_CLASSES, order)
    out = row_columns(titles, body, (at,) if index is None else (at, index))
    notes += out.values()
    features = [i for i in range(width) if i not in (at, index, *out)]
    cells = [[body[row][i] for i in features] for row in kept]
    read = [titles[i] for i in features]
    try:
        x = np.asarray(cells, dtype=np.float64)
    except ValueError:
        raise InputError(_not_a_number(cells, read, path), hint=_as_texts(lines, cells)) from None
    made = numbers(torch.from_numpy(x), path)
    guess = "" if label or titles[at].lower() in LABELS else ", the last, for none is called label, class, target or y"
    columns = {title: [row[i] for row in cells] for i, title in enumerate(read)}
    unsure = doubtful(columns, [body[row][at].strip() for row in kept], titles[at])
    notes = [f"labels are column {titles[at]!r}{guess}", *notes, *unsure, *said]
    ids = tuple(map(str, kept))
    data, table = Data(made, torch.tensor(numbered)), Tabular.of_table(made, read)
    return Rows(data, table, names, path.name, ids, notes=tuple(notes))


def is_heading(lines: list[list[str]]) -> bool:
    """No cell of the first line is a number, or one is not where the second line has one."""
    if not any(is_number(c) for c in lines[0]):
        return True
    second = lines[1] if len(lines) > 1 else []
    return any(not is_number(a) and is_number(b) for a, b in zip(lines[0], second))


def _label_column(titles: list[str], width: int, label: str | None, path: Path) -> int:
    plain = [title.strip() for title in titles]
    if label is not None:
        if label not in plain:
            raise InputError(f"{path} has no column {label!r}", hint=f"columns: {', '.join(plain) or 'no heading'}")
        return plain.index(label)
    lower = [title.lower() for title in plain]
    return next((lower.index(name) for name in LABELS if name in lower), width - 1)


def _as_texts(lines: list[list[str]], cells: list[list[str]]) -> str:
    """What to type where the cells are texts and not numbers."""
    if not any(len(cell.split()) > 2 for line in cells[:100] for cell in line):
        return "leave out columns of texts, or number their values"
    if any(len(cell.split()) > 2 for cell in lines[0]):
        names = ["text" if len(cell.split()) > 2 else "label" for cell in lines[0]]
        return f"the file holds texts and has no heading: put one before its first line, such as {','.join(names)}"
    return "the file holds texts: name their column with --text-column, and that of the labels with --label-column"


def _not_a_number(cells: list[list[str]], titles: list[str], path: Path) -> str:
    for row, line in enumerate(cells, 1):
        for title, cell in zip(titles, line):
            if not is_number(cell):
                return f"{path}: {cell[:40]!r} in column {title!r}, row {row} of the body, is no number"
    return f"{path} holds cells that are no numbers"
