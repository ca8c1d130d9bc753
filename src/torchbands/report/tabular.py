"""The results as rows of plain values, for pandas, a spreadsheet or a script: one row a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torchbands.core.errors import MissingExtra
from torchbands.core.metric import Interval
from torchbands.core.words import csv_cell

from .collect import collect
from .glossary import term
from .results import Attack, Cell, Results, TaskResults

COLUMNS = (
    "task",
    "attack",
    "defense",
    "role",
    "state",
    "metric",
    "mean",
    "low",
    "high",
    "n",
    "unit",
    "better",
    "reason",
)


#: The unit of a share: a page shows it in per cent, a table of numbers as it is.
_FRACTION = "fraction"


def rows(results: Results | str | Path) -> list[dict[str, Any]]:
    """Every number of a benchmark, as one dict each with the keys of `COLUMNS`.

    task, attack, defense: as the report prints them; `torchbands.build` reads the last two. The rows of an attack by
    itself have the defense "" and the role "attack". mean, low, high: over `n` seeds, with the ends of the 95 %
    interval; None where there is none. Shares are fractions, from 0 to 1, and their unit says so. state: done, invalid
    (the attack did not take), not-applicable, failed or missing; what has no number has a row with its reason.

    Args:
        results: a store's folder, or what `collect` made of it.
    """
    found = results if isinstance(results, Results) else collect(results)
    return [row for task in found.tasks for row in _of_task(task)]


def frame(results: Results | str | Path) -> Any:
    """The rows as a pandas DataFrame, which needs pandas.

    As in `frame(store).query("metric == 'auroc'").pivot_table("mean", "attack", "defense")`.
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtra("pandas", "pandas") from None
    made = pandas.DataFrame(rows(results), columns=list(COLUMNS))
    return made.astype({"n": "Int64", "mean": float, "low": float, "high": float})


def render(results: Results) -> str:
    """The rows as CSV; no cell is a formula to a spreadsheet."""
    out = io.StringIO()
    made = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    made.writeheader()
    for row in rows(results):
        made.writerow({key: "" if value is None else csv_cell(_short(value)) for key, value in row.items()})
    return out.getvalue()


def _of_task(task: TaskResults) -> Iterator[dict[str, Any]]:
    for attack in task.attacks:
        yield from _of(task, attack, attack.label, "", "attack")
        for axis, metrics in attack.stealth.items():
            yield from _numbers(_head(task, attack.label, "", "attack", attack.state), metrics, f"stealth_{axis}.")
        for defense in task.defenses:
            yield from _of(task, task.cell(attack, defense), attack.label, defense.label, defense.role)


def _of(task: TaskResults, what: Attack | Cell, attack: str, defense: str, role: str) -> Iterator[dict[str, Any]]:
    head = _head(task, attack, defense, role, what.state)
    numbers = [*_numbers(head, what.metrics), *_numbers(head, what.cost, "cost.")]
    missing = [{**head, "metric": name, "reason": why} for name, why in what.undefined.items()]
    yield from numbers
    yield from missing
    if not numbers and not missing:
        yield {**head, "metric": "", "reason": what.reason}


def _head(task: TaskResults, attack: str, defense: str, role: str, state: str) -> dict[str, Any]:
    told = {"task": task.label, "attack": attack, "defense": defense, "role": role, "state": state}
    return {**dict.fromkeys(COLUMNS), **told, "unit": "", "better": "", "reason": ""}


def _numbers(head: Mapping[str, Any], found: Mapping[str, Interval], prefix: str = "") -> Iterator[dict[str, Any]]:
    for name, value in found.items():
        about = term(name)
        told = {
            "metric": f"{prefix}{name}",
            "unit": _FRACTION if about.unit == "%" else about.unit,
            "better": about.better,
        }
        yield {**head, **told, "mean": value.mean, "low": value.low, "high": value.high, "n": value.n}


def _short(value: Any) -> Any:
    """Seven digits: enough for what seeds can tell apart."""
    return f"{value:.7g}" if isinstance(value, float) else value
