"""The user's own labelled texts: one CSV, TSV or JSON-lines file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torchbands.core.errors import InputError

#: Column names that are taken for what they say, in this order.
TEXTS = ("text", "sentence", "content", "review", "message", "body")
LABELS = ("label", "class", "category", "target", "y")
PARTS = ("split", "part")
#: A larger file, cell or number of classes is refused.
MOST_BYTES, MOST_CELL, MOST_CLASSES = 2 << 30, 1 << 20, 65_536
SUFFIXES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class TextRows:
    """Texts, their labels as numbers, the labels' names, and the part each row says it belongs to ("" for none).
    `text` and `label` are the columns they were read from."""

    texts: list[str]
    labels: list[int]
    names: tuple[str, ...]
    parts: list[str]
    text: str
    label: str


def text_column(path: Path) -> str | None:
    """The name of a file's text column, if it has one of the usual names and its first row is no number there."""
    try:
        first = next(_rows(path), None)
    except InputError:
        return None
    found = None if first is None else _named(first, TEXTS)
    return None if first is None or found is None or _is_number(first[found]) else found


def read_text_file(path: Path, *, text: str = "", label: str = "") -> TextRows:
    """Read labelled texts. Labels are numbered in sorted order, as numbers where they all are.

    Args:
        text, label: the columns; by default the first of the usual names (text, sentence, ...; label, class, ...).

    Raises InputError, naming the line, for what is not readable, too large, without a text or with one class only.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="name a .csv, .tsv or .jsonl file")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    texts: list[str] = []
    labels: list[str] = []
    parts: list[str] = []
    for number, row in enumerate(_rows(path), 1):
        if number == 1:
            text, label = _column(row, text, TEXTS, "text", path), _column(row, label, LABELS, "label", path)
            part = _named(row, PARTS)
        for name in (text, label):
            if row.get(name) is None:
                raise InputError(f"{path}: row {number} has no {name!r}")
        texts.append(row[text])
        labels.append(row[label].strip())
        parts.append(row.get(part, "").strip().lower() if part else "")
    if not texts:
        raise InputError(f"{path} holds no rows", hint="a heading with text,label and one row for each text")
    found = set(labels)
    if len(found) < 2:
        raise InputError(f"{path} holds one class only, {labels[0][:40]!r}; at least two are needed")
    if len(found) > MOST_CLASSES or len(found) > max(10, len(labels) // 2):
        raise InputError(f"{path}: {len(found)} labels for {len(labels)} rows: is {label!r} the label column?")
    names = sorted(found, key=float) if all(map(_is_number, found)) else sorted(found)
    number_of = {name: i for i, name in enumerate(names)}
    return TextRows(texts, [number_of[name] for name in labels], tuple(names), parts, text, label)


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise InputError(f"{path} is of a kind that is not read ({kind or 'no suffix'})", hint=", ".join(SUFFIXES))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if kind == ".jsonl":
                yield from _json_rows(file, path)
                return
            csv.field_size_limit(MOST_CELL)
            for row in csv.DictReader(file, delimiter="\t" if kind == ".tsv" else ","):
                yield {(k or "").strip(): v for k, v in row.items() if isinstance(k, str) and isinstance(v, str)}
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable UTF-8 text table: {error}") from None


def _json_rows(lines: Iterator[str], path: Path) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{path}: line {number} is no JSON object") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is no JSON object")
        yield {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in row.items() if v is not None}


def _named(row: Mapping[str, str], usual: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in row}
    return next((lower[name] for name in usual if name in lower), None)


def _column(row: Mapping[str, str], given: str, usual: tuple[str, ...], what: str, path: Path) -> str:
    found = given if given in row else None if given else _named(row, usual)
    if found is None:
        raise InputError(
            f"{path} has no {what} column {given or ' or '.join(usual)}",
            hint=f"columns: {', '.join(row) or 'none'}; name it with {what}_column=",
        )
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
