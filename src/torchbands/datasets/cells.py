"""Cells of CSV and TSV files, strictly: a row that does not fit its heading is refused, never shifted or cut."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torchbands.core.errors import InputError

from .frames import read_frame
from .table import MOST_BYTES, Cells

#: A larger cell is refused.
MOST_CELL = 1 << 20
#: Suffixes of files of columns, which `frames` reads.
FRAMES = (".parquet", ".arrow", ".feather")
#: What is written for a label that is not there.
MISSING = frozenset({"", "nan"})


def kind_of(path: Path) -> str:
    """The suffix that tells what a file is: that before .gz where there is one."""
    suffixes = [s.lower() for s in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""


def text_of(path: Path) -> str:
    """A file's text, unpacked where it is gzip. InputError for what is too large or not UTF-8."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path} has more than {MOST_BYTES:,} bytes", hint="save numbers as .npz, or fewer rows")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}", hint="save it again with encoding='utf-8'") from None


def read_cells(path: Path) -> Cells:
    """All rows of a CSV or TSV file (semicolons where its first line says so), blank lines left out.

    Raises InputError, naming the line, for a row of another length than the first, and for a quote that never closes.
    """
    if kind_of(path) in FRAMES:
        return read_frame((path,)).cells()
    text = text_of(path)
    first = text.lstrip("\r\n").split("\n", 1)[0]
    tab = kind_of(path) == ".tsv"
    by = "\t" if tab else ","
    notes: list[str] = []
    if by not in first and (other := [d for d in "\t;," if d != by and d in first]):
        by = other[0]
        names = {"\t": "tabs", ";": "semicolons", ",": "commas"}
        notes.append(f"cells are separated by {names[by]}")
    found = _parsed(text, by, csv.QUOTE_MINIMAL)
    if isinstance(found, str) and by == "\t":
        plain = _parsed(text, by, csv.QUOTE_NONE)
        if not isinstance(plain, str):
            notes.append("quotes are read as they stand: they do not enclose cells in this file")
            found = plain
    if isinstance(found, str):
        raise InputError(f"{path}: {found}", hint='enclose a text with commas or quotes: "like, this" (and " as "")')
    rows, lines = found
    if again := _repeated_heading(rows):
        many = "row that repeats the heading was" if len(again) == 1 else "rows that repeat the heading were"
        notes.append(f"{len(again):,} {many} left out")
        rows = [row for i, row in enumerate(rows) if i not in again]
        lines = [line for i, line in enumerate(lines) if i not in again]
    if hidden := _hidden(rows, by):
        notes.append(f"{hidden:,} cells span lines that look like rows of their own: is a quote missing?")
    return Cells(rows, lines, tuple(notes))


def read_all(files: Sequence[Path]) -> Cells:
    """The rows of several files of one heading, one after another, under one heading."""
    if files and kind_of(files[0]) in FRAMES:
        return read_frame(files).cells()
    parts = [read_cells(path) for path in files]
    head = parts[0]
    for path, part in zip(files[1:], parts[1:]):
        if part.rows[:1] != head.rows[:1]:
            raise InputError(f"{path} has another heading than {files[0]}", hint="name one of the files")
    rows = [row for i, part in enumerate(parts) for row in part.rows[bool(i) :]]
    lines = [line for i, part in enumerate(parts) for line in part.lines[bool(i) :]]
    return Cells(rows, lines, tuple(dict.fromkeys(note for part in parts for note in part.notes)))


def _parsed(text: str, by: str, quoting: int) -> tuple[list[list[str]], list[int]] | str:
    csv.field_size_limit(MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=by, quoting=quoting, strict=True)  # type: ignore[arg-type]
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not row:
                continue
            if rows and len(row) != len(rows[0]):
                return (
                    f"row {len(rows) + 1} (line {reader.line_num}) has {len(row)} cells, the first has {len(rows[0])}"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        return f"line {reader.line_num} and the quotes before it cannot be read ({error})"
    return rows, lines


def _hidden(rows: Sequence[Sequence[str]], by: str) -> int:
    """Cells with a line break whose lines have as many separators, and end like a whole row."""
    width, ends = len(rows[0]) if rows else 0, {row[-1].strip() for row in rows[1:]}
    usual = len(ends) <= max(10, len(rows) // 10)
    return sum(
        any(line.count(by) == width - 1 and line.rsplit(by, 1)[-1].strip() in ends for line in cell.splitlines()[:-1])
        for row in rows[1:]
        for cell in row
        if usual and "\n" in cell
    )


def headed(titles: Sequence[str], path: Path) -> list[str]:
    """Titles without blanks around them. InputError where two columns have one name, in whatever case."""
    plain = [title.strip() for title in titles]
    twice = [name for name, n in Counter(t.lower() for t in plain if t).items() if n > 1]
    if twice:
        same = [t for t in plain if t.lower() == twice[0]]
        raise InputError(f"{path} has {len(same)} columns named {' and '.join(map(repr, same))}", hint="rename one")
    return plain


def index_column(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    """The first column, where it is the index that pandas writes: without a title, one whole number after another."""
    if len(titles) < 3 or titles[0].strip() not in ("", "Unnamed: 0"):
        return None
    first = [row[0].strip() for row in rows]
    return 0 if all(cell.isdecimal() for cell in first) and len(set(first)) == len(first) else None


def labelled(
    cells: Sequence[str], path: Path, most: int, order: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[int], list[int], list[str]]:
    """Names of the classes; the row and the number of every label that is there; and what was left out or merged.

    Labels are numbered in sorted order, as numbers where they all are: 1 and 1.0 are then one class; or in `order`,
    where the file gives one that holds them all.
    """
    plain = [cell.strip() for cell in cells]
    given = {cell for cell in plain if cell.lower() not in MISSING}
    if len(given) > 2 and {cell.lower() for cell in given} == {"true", "false"}:
        plain = [cell.lower() if cell in given else cell for cell in plain]
        said = [f"labels are true and false, however they are spelt: {', '.join(sorted(given)[:6])}"]
    else:
        said = []
    kept = [row for row, cell in enumerate(plain) if cell.lower() not in MISSING]
    notes = [f"{len(plain) - len(kept):,} rows without a label were left out"] if len(kept) < len(plain) else []
    notes += said
    found = {plain[row] for row in kept}
    if len(found) < 2:
        only = f"one class only, {min(found)[:40]!r}" if found else "no labels"
        raise InputError(f"{path} holds {only}; at least two are needed")
    if len(found) > most or len(found) > max(10, len(kept) // 2):
        raise InputError(f"{path}: {len(found)} labels for {len(kept)} rows: is this the label column?")
    number_of: dict[str, int]
    if order and found <= set(order) and len(set(order)) == len(order):
        names = tuple(order)
        number_of = {name: i for i, name in enumerate(names)}
    elif all(map(is_number, found)):
        values = sorted({float(name) for name in found})
        spelt = {v: min((n for n in found if float(n) == v), key=lambda n: (len(n), n)) for v in values}
        names = tuple(spelt[v] for v in values)
        number_of = {name: values.index(float(name)) for name in found}
        if len(names) < len(found):
            pair = next(
                sorted(n for n in found if float(n) == v) for v in values if sum(float(n) == v for n in found) > 1
            )
            notes.append(f"labels that are one number are one class, such as {' and '.join(pair[:3])}")
        if len(names) < 2:
            raise InputError(f"{path} holds one class only, {names[0]!r}; at least two are needed")
    else:
        names = tuple(sorted(found))
        number_of = {name: i for i, name in enumerate(names)}
        alike = Counter(name.casefold() for name in names)
        if twice := [n for n in names if alike[n.casefold()] > 1]:
            notes.append(f"labels that differ only in case are classes of their own: {' and '.join(twice[:3])}"[:200])
    return names, kept, [number_of[plain[row]] for row in kept], notes


def _repeated_heading(rows: Sequence[Sequence[str]]) -> set[int]:
    """Rows that are the first one again, where it holds no number: files with a heading each, joined as they were."""
    if not rows or any(map(is_number, rows[0])):
        return set()
    return {i for i, row in enumerate(rows) if i and row == rows[0]}


def is_number(text: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
