"""Output: results go to stdout, progress and remarks to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from torchbands.core.words import escaped, json_text

from .streams import raw


def out() -> Console:
    """A console on stdout; wide if it is not a terminal, so that nothing is cut in a pipe. Respects NO_COLOR."""
    console = Console(highlight=False, file=raw(sys.stdout))
    return console if console.is_terminal else Console(highlight=False, width=200, file=raw(sys.stdout))


def note(message: str) -> None:
    """A message on stderr."""
    print(escaped(message, keep="\n"), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """JSON on stdout, alone."""
    print(json_text(value))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table; cells are plain text, never markup."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns))
    for i, column in enumerate(columns):
        last = i == len(columns) - 1
        table.add_column(Text(column, style="bold"), justify="right" if i in right else "left", no_wrap=not last)
    for row in rows:
        table.add_row(*(Text(escaped(cell.replace("\n", " "))) for cell in row))
    console = out()
    if console.is_terminal:
        console.print(table)
        return
    # in a pipe a row is one line, whole: what looks for a name finds it
    console.width = 2 * len(columns) + 4 * max(sum(map(len, row)) for row in (columns, *rows))
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


class Bar:
    """A progress bar on stderr; if that is not a terminal, one line per step."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.task = None if progress is None else progress.add_task("starting", total=None)
        self.last = ""

    def __call__(self, done: float, total: float | None, what: str) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, total=total, description=_short(escaped(what)))
        elif what != self.last:
            self.last = what
            note(f"[{done:g}/{total:g}] {what}" if total else what)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Show a progress bar during the block."""
    console = Console(file=raw(sys.stderr))
    if not console.is_terminal:
        yield Bar(None)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


def _short(text: str, most: int = 60) -> str:
    """Shorten a text to fit beside the bar, keeping the time estimate at its end."""
    head, sep, left = text.rpartition(" · ")
    if sep and left.endswith(" left") and len(text) > most:
        return f"{_short(head, most - len(sep + left))}{sep}{left}"
    return text if len(text) <= most else text[: most - 1] + "…"
