"""The result of a scan in formats for people, CI, code hosts and model cards."""

from __future__ import annotations

from collections.abc import Callable

from torchbands.core.errors import UnknownName
from torchbands.scanner.alerts import Level
from torchbands.scanner.outcome import Outcome

from . import html, json, junit, markdown, sarif, text

__all__ = ["FORMATS", "SUFFIXES", "render"]

_RENDER: dict[str, Callable[[Outcome, Level, str], str]] = {
    "text": text.render,
    "json": json.render,
    "sarif": sarif.render,
    "junit": junit.render,
    "html": html.render,
    "markdown": markdown.render,
}
FORMATS = tuple(_RENDER)
SUFFIXES = {"text": "txt", "json": "json", "sarif": "sarif", "junit": "xml", "html": "html", "markdown": "md"}


def render(outcome: Outcome, format: str, *, fail_on: Level = "medium", error: str = "") -> str:
    """An outcome as a document. Paths, names and facts are taken as hostile and escaped for the format.

    Args:
        format: text, json, sarif, junit, html or markdown.
        fail_on: the level from which alerts fail a build; SARIF and JUnit say so.
        error: why the tool itself failed, where it did: no format then reads as a finished scan.

    Raises:
        UnknownName: no such format.
    """
    if format not in _RENDER:
        raise UnknownName("format of a scan report", format, FORMATS)
    return _RENDER[format](outcome, fail_on, error)
