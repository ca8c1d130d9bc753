"""The user's own labelled texts: a CSV, TSV, JSON-lines or Parquet file, or the files of one data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torchbands.core.errors import InputError

from .cells import FRAMES, headed, is_number, kind_of, labelled, read_all, text_of
from .columns import not_read

#: Column names that are taken for what they say, in this order.
TEXTS = ("text", "sentence", "content", "review", "message", "body")
LABELS = ("label", "class", "category", "target", "y")
PARTS = ("split", "part")
#: More classes are refused.
MOST_CLASSES = 65_536
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", *FRAMES)
#: Rows with the name of every column; the names of classes by the column of labels; what was assumed.
_Read = tuple[list[Mapping[str, str]], Mapping[str, tuple[str, ...]], tuple[str, ...]]


@dataclass(frozen=True)
class TextRows:
    """Texts, their labels as numbers, the labels' names, and the part each row says it belongs to ("" for none).
    `text` and `label` are the columns they were read from, `rows` the number of each in the file; `notes` say what was
    left out or assumed."""

    texts: list[str]
    labels: list[int]
    names: tuple[str, ...]
    parts: list[str]
    text: str
    label: str
    rows: list[int] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def text_column(path: Path, files: Sequence[Path] = ()) -> str | None:
    """The name of a file's text column, if it has one of the usual names and is no number in some of its first rows."""
    try:
        first = _rows(path, files)[0][:20]
    except InputError:
        return None
    found = _named(first[0], TEXTS) if first else None
    told = [row[found] for row in first if row.get(found)] if found else []
    return None if told and all(map(is_number, told)) else found


def read_text_file(path: Path, *, text: str = "", label: str = "", files: Sequence[Path] = ()) -> TextRows:
    """Read labelled texts. Labels are numbered in sorted order, as numbers where they all are.

    Args:
        text, label: the columns; by default the first of the usual names (text, sentence, ...; label, class, ...).
        files: the files that a folder `path` is made of.

    Raises InputError, naming the line, for what is not readable, too large, without a text or with one class only.
    """
    if not files and not path.is_file():
        raise InputError(f"there is no file {path}", hint="name a .csv, .tsv or .jsonl file")
    found, classes, notes = _rows(path, files)
    if not found:
        raise InputError(f"{path} holds no rows", hint="a heading with text,label and one row for each text")
    text, label = _column(found[0], text, TEXTS, "text", path), _column(found[0], label, LABELS, "label", path)
    _plain_only(found, {"text": text, "label": label}, path)
    part = _named(found[0], PARTS)
    missing = next((number for number, row in enumerate(found, 1) if row.get(text) is None), None)
    if missing is not None:
        raise InputError(f"{path}: row {missing} has no {text!r}")
    names, kept, labels, said = labelled(
        [row.get(label, "") for row in found], path, MOST_CLASSES, classes.get(label, ())
    )
    rows = [found[row] for row in kept]
    parts = [row.get(part, "").strip().lower() if part else "" for row in rows]
    titles = dict.fromkeys(name for row in found for name in row)
    notes = (*notes, *not_read(titles, (text, label)), *said)
    return TextRows([row[text] for row in rows], labels, names, parts, text, label, kept, notes)


def columns_of(path: Path) -> tuple[dict[str, list[str]], Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """Every column of a file by its title, the names of classes where the file gives them, and what was assumed."""
    rows, classes, notes = _rows(path)
    titles = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, "") for row in rows] for name in titles}, classes, notes


def texts_of(path: Path, text: str = "") -> tuple[list[str], str]:
    """The texts of a file, labels or not, and what was read. InputError for what is not readable."""
    found, _, notes = _rows(path)
    if not found:
        raise InputError(f"{path} holds no rows", hint="a heading with text and one row for each text")
    text = _column(found[0], text, TEXTS, "text", path)
    missing = next((number for number, row in enumerate(found, 1) if row.get(text) is None), None)
    if missing is not None:
        raise InputError(f"{path}: row {missing} has no {text!r}")
    return [row[text] for row in found], "; ".join([f"texts are column {text!r}", *notes])


def _rows(path: Path, files: Sequence[Path] = ()) -> _Read:
    files = files or (path,)
    kind = kind_of(files[0])
    if kind not in SUFFIXES:
        raise InputError(f"{path} is of a kind that is not read ({kind or 'no suffix'})", hint=", ".join(SUFFIXES))
    if kind in (".jsonl", ".ndjson"):
        return [row for file in files for row in _json_rows(iter(text_of(file).split("\n")), file)], {}, ()
    cells = read_all(files)
    if not cells.rows:
        return [], {}, ()
    titles = headed(cells.rows[0], path)
    return [dict(zip(titles, row)) for row in cells.rows[1:]], cells.classes, cells.notes


def _json_rows(lines: Iterator[str], path: Path) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{path}: line {number} is not a JSON object") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is not a JSON object")
        yield {str(k): _cell(v) for k, v in row.items() if v is not None}


class _Nested(str):
    """A cell that holds a list or an object of JSON."""

    __slots__ = ()


def _cell(value: object) -> str:
    if isinstance(value, (dict, list)):
        return _Nested(json.dumps(value))
    return value if isinstance(value, str) else json.dumps(value)


def _plain_only(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], path: Path) -> None:
    """Raises InputError where a text or a label is a list or an object."""
    for number, row in enumerate(rows, 1):
        for what, column in columns.items():
            if isinstance(cell := row.get(column), _Nested):
                raise InputError(
                    f"{path}: row {number} has {cell[:60]} for its {what} ({column!r}), expected a text or a number",
                    hint=f"flatten it first (pandas.json_normalize), or name another column with --{what}-column",
                )


def _named(row: Mapping[str, str], usual: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in row}
    return next((lower[name] for name in usual if name in lower), None)


def _column(row: Mapping[str, str], given: str, usual: tuple[str, ...], what: str, path: Path) -> str:
    found = _named(row, usual) if not given else given if given in row else None
    if found is None:
        raise InputError(
            f"{path} has no {what} column {given or ' or '.join(usual)}",
            hint=f"columns: {', '.join(row) or 'none'}; name it with --{what}-column NAME, in Python {what}_column=",
        )
    return found
