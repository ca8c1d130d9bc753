"""How numbers were made: stated once if it is the same for the whole store, otherwise row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .read import Record

#: What methods may rightly differ in: told row by row, and no reason for a warning.
PRECISION = "precision"


def facts(record: Record) -> dict[str, str]:
    """The versions, device and precision behind a record."""
    told = record.get("versions")
    found = {str(k): str(v) for k, v in told.items()} if isinstance(told, Mapping) else {}
    if isinstance(record.get(PRECISION), str):
        found[PRECISION] = str(record[PRECISION])
    return found


def split(records: Iterable[Record]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The facts that all records share, and the names of those that differ."""
    values: dict[str, set[str]] = {}
    for record in records:
        for name, value in facts(record).items():
            values.setdefault(name, set()).add(value)
    same = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    return same, tuple(sorted(name for name, found in values.items() if len(found) > 1))


def of_row(records: Sequence[Record], mixed: Sequence[str]) -> dict[str, str]:
    """How one row was made, as far as rows differ."""
    found = {name: sorted({value for r in records if (value := facts(r).get(name))}) for name in mixed}
    return {name: ", ".join(values) for name, values in found.items() if values}
