"""The accuracy that a suspect's own files state: it is believed for one thing only, to notice that rows are misread."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from torchbands.core.errors import InputError

from .files import Folder, read
from .limits import MAX_JSON
from .weights import State

#: Files that training scripts write beside a model.
_RESULTS = ("test_results.json", "predict_results.json", "eval_results.json", "all_results.json")
_CARD = "README.md"
#: Keys of an accuracy that was not measured on training rows, where nothing else follows.
KEY = re.compile(r"(best|val|valid|validation|test|eval|predict)?[_/ ]?(top_?1_?)?(acc|accuracy|prec)[_@]?1?", re.I)
#: In a model card's table of results: the type of a metric, and its value within a few lines.
_METRIC = re.compile(r"type:[ \t]*accuracy[ \t]*\n(?:[^\n]{0,200}\n){0,3}?[ \t]*value:[ \t]*([0-9.]{1,20})")


def of_folder(folder: Folder, state: State) -> None:
    """Note what the results or the card of a Hugging Face folder say. They are no part of the model: what is wrong with
    them is no finding."""
    for name in _RESULTS:
        try:
            found = json.loads(_text(folder, name) or "null")
        except (ValueError, RecursionError):
            continue
        if isinstance(found, Mapping) and note(found, name, state):
            return
    text = _text(folder, _CARD)
    head = text[: 1 << 16].split("\n---", 1)[0] if text.startswith("---") else ""
    if values := _METRIC.findall(head):
        note({"accuracy": values[0]}, _CARD, state)


def _text(folder: Folder, name: str) -> str:
    if name not in folder.names:
        return ""
    try:
        return read(folder.path / name, MAX_JSON, follow=False).decode("utf-8", "replace")
    except InputError:
        return ""


def note(found: Mapping[Any, Any], where: str, state: State) -> bool:
    """Keep the first accuracy among the keys, as a share; percentages are told by their size."""
    for key, value in found.items():
        if isinstance(key, str) and len(key) < 40 and KEY.fullmatch(key) and (share := share_of(value)) is not None:
            state.facts["claimed_accuracy"] = {"accuracy": share, "where": where}
            return True
    return False


def share_of(value: Any) -> float | None:
    """A number in 0 ... 1, or in 1 ... 100 as percent; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    if isinstance(value, bool) or not 0 < number <= 100:
        return None
    return round(number if number <= 1 else number / 100, 4)
