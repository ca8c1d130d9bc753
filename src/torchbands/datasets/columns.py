"""Columns of a user's table that are no features: which count the rows, which look like labels, which are not read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

#: Titles of columns that name rows, where every cell is another.
ROW_NAMES = frozenset(
    ("id", "index", "idx", "uuid", "guid", "key", "row", "row_id", "rowid", "row_number", "unnamed: 0")
)
#: Titles that say label.
LABEL_NAMES = frozenset(("label", "labels", "class", "classes", "category", "target", "targets", "y", "ground_truth"))
#: Fewer cells are in order by chance.
_FEWEST = 10


def row_columns(titles: Sequence[str], rows: Sequence[Sequence[str]], but: Iterable[int] = ()) -> dict[int, str]:
    """Columns that name or count the rows, with why: whole numbers that only rise or only fall from row to row, and
    what is called id, index or the like and is another in every row. A model would learn the order of the file."""
    kept = set(but)
    found = {}
    for at, title in enumerate(titles):
        if at not in kept and (why := _names_rows(title, [row[at].strip() for row in rows])):
            found[at] = f"column {title!r} {why}: it is left out"
    return found if len(found) + len(kept) < len(titles) else {}  # something must be left to learn from


def _names_rows(title: str, cells: Sequence[str]) -> str:
    if len(cells) < _FEWEST or len(set(cells)) < len(cells):
        return ""
    if all(cell.lstrip("-").isdecimal() for cell in cells):
        numbers = [int(cell) for cell in cells]
        steps = [b > a for a, b in itertools.pairwise(numbers)]
        if all(steps) or not any(steps):
            return "counts the rows"
    return "names the rows" if title.strip().lower() in ROW_NAMES else ""


def not_read(titles: Iterable[str], used: Iterable[str]) -> tuple[str, ...]:
    """One remark on the columns that are not read, if any."""
    left = [title for title in titles if title not in set(used)]
    if not left:
        return ()
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    many = "1 column is" if len(left) == 1 else f"{len(left)} columns are"
    return (f"{many} not read: {', '.join(map(repr, left[:5]))}{more}",)


def doubtful(columns: Mapping[str, Sequence[str]], labels: Sequence[str], label: str) -> tuple[str, ...]:
    """Remarks on features that may be labels: by their name, or because each of their few values has one label."""
    told = []
    for title, cells in columns.items():
        pairs = set(zip(cells, labels))
        values = {value for value, _ in pairs}
        if title.strip().lower() in LABEL_NAMES:
            why = "its name says label too"
        elif 1 < len(values) == len(pairs) and len(values) <= 2 * len(set(labels)) and len(cells) >= _FEWEST:
            why = f"each of its {len(values)} values has one label alone"
        else:
            continue
        told.append(
            f"column {title!r} is read as a feature, though {why}: leave it out where it is no feature, or name the "
            f"labels with --label-column (now {label!r})"
        )
    return tuple(told)
