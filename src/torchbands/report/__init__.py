"""The report of a benchmark: one offline HTML file a person can read, the same as Markdown and JSON, and its numbers as
CSV, as LaTeX tables, as rows and as a pandas frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torchbands.core.errors import InputError, UnknownName
from torchbands.zoo.files import write_text

from . import html, json, latex, markdown, summary, tabular
from .collect import collect
from .results import Results
from .tabular import frame, rows

__all__ = ["ALL_FORMATS", "FORMATS", "Results", "collect", "format_of", "frame", "render", "rows", "warnings", "write"]

_RENDER: dict[str, Callable[[Results], str]] = {
    "html": html.render,
    "md": markdown.render,
    "json": json.render,
    "csv": tabular.render,
    "tex": latex.render,
}
_ALIASES = {"markdown": "md", "latex": "tex", "htm": "html"}
#: What a run writes, and what may be asked for.
FORMATS, ALL_FORMATS = ("html", "md", "json"), (*_RENDER, "markdown", "latex")


def format_of(name: str) -> str:
    """The format of a name or of a file's suffix: "markdown" is "md", "latex" is "tex". UnknownName for others."""
    given = name.strip().lower().lstrip(".")
    if (found := _ALIASES.get(given, given)) not in _RENDER:
        raise UnknownName("format of a report", name, ALL_FORMATS)
    return found


def render(store: Path | str | Results, format: str) -> str:
    """The report of a store as text, in one format of `ALL_FORMATS`."""
    return _RENDER[format_of(format)](store if isinstance(store, Results) else collect(store))


def write(store: Path | str, out: Path | str | None = None, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the report of a store.

    Args:
        store: directory of a benchmark.
        out: file of the first format (the others beside it, with their own suffix), or a directory; `store/report.*`
            when None.
        formats: of "html", "md" (or "markdown"), "json", "csv" and "tex" (or "latex").

    Returns:
        The files written, in the order of the formats.

    Raises:
        InputError: no benchmark there, or the files cannot be written. UnknownName: no such format.
    """
    formats = list(dict.fromkeys(map(format_of, formats)))
    if not formats:
        raise InputError("no format was named", hint=f"name some of: {', '.join(FORMATS)}")
    results = collect(store)
    target = Path(store) / "report" if out is None else Path(out)
    if target.is_dir() or (out is not None and str(out).endswith("/")):
        target = target / "report"
    known = {*(f".{name}" for name in _RENDER), *(f".{name}" for name in _ALIASES)}
    stem = target.with_suffix("") if target.suffix.lower() in known else target
    written = []
    for kind in formats:
        own = len(formats) == 1 and target.suffix
        path = target if own else stem.parent / f"{stem.name}.{kind}"
        if path.stem != "report" and path.exists() and path.resolve().is_relative_to(Path(store).resolve()):
            raise InputError(f"{path} is part of the store {store}", hint="name another place for the report")
        _write(path, _RENDER[kind](results))
        written.append(path)
    return written


def warnings(store: Path | str) -> list[str]:
    """Warnings about how the numbers of a store were made; empty if all were made in the same way."""
    return [text for _, text in summary.warnings(collect(store))]


def _write(path: Path, text: str) -> None:
    """Write a file atomically."""
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}", hint="name another place with -o FILE"
        ) from error
