"""Which class of a model each class of some rows is: by name where both name theirs, by number, or as the user says."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from torchbands.core.errors import InputError

from .rows import Rows

#: Names that are no names: what transformers writes where nobody named the classes.
_DEFAULT = re.compile(r"(?:label|class)?[ _-]*(\d+)", re.IGNORECASE)
#: What --labels says where the model's classes are those of the rows, in their order.
SORTED = "sorted"
_BY_HAND = "say it: --labels NAME=CLASS,... (or a .json file of such pairs), or --labels sorted"


@dataclass(frozen=True)
class Matched:
    """Of each class of the rows, the model's class (None: it has none, and the rows are left out); and what to tell."""

    order: tuple[int | None, ...]
    notes: tuple[str, ...] = ()


def named(names: Sequence[str] | None) -> bool:
    """Whether a model really names its classes: 'LABEL_0' or '0' for class 0 is its number."""
    said = [_DEFAULT.fullmatch(name.strip()) for name in names or ()]
    return any(found is None or int(found[1]) != k for k, found in enumerate(said))


def matched(rows: Sequence[str], model: Sequence[str] | None, classes: int, labels: str | None = None) -> Matched:
    """Match the classes of rows with those of a model.

    Args:
        rows: names of the rows' classes, in the order of their numbers. model: the model's names, where it has any.
        classes: how many classes the model has.
        labels: what the user says of it (--labels): "sorted", NAME=CLASS pairs, a JSON object or the path of one;
            a CLASS is one of the model's names or numbers.

    Raises:
        InputError: two readings are possible, or none; the hint says what to type.
    """
    if labels is not None:
        return _told(_by_hand(labels, rows, model, classes), rows, model, classes, by="as --labels says")
    if model is not None and named(model):
        order = _by_name(rows, model)
        if any(k is not None for k in order):
            return _told(order, rows, model, classes, by="by name")
    if all(name.isdecimal() for name in rows):
        found = _told(_by_number(rows, classes), rows, model, classes, by="by number")
        odd = len(rows) == classes and {*map(int, rows)} != {*range(classes)}
        return replace(found, notes=(*found.notes, _guessed(rows))) if odd else found
    if model is not None and named(model):
        raise InputError(
            f"the model's classes are {_some(model)}; those of the rows are {_some(rows)}: none has the same name",
            hint=_BY_HAND,
        )
    if len(rows) == classes:
        return Matched(tuple(range(classes)), (_guessed(rows),))
    raise InputError(
        f"the model has {classes} classes and does not name them; the rows have {len(rows)} ({_some(rows)}): which "
        f"{'are missing' if len(rows) < classes else 'are too many'} cannot be told",
        hint="name the model's classes in their order: --class-names A,B,...; or " + _BY_HAND,
    )


def renumbered(rows: Rows, found: Matched, names: Sequence[str], *, whole: bool = False) -> Rows:
    """The rows with the model's numbers; those of classes that it does not have are left out.

    Args:
        whole: leave nothing out. Raises InputError where the model does not have all of the classes.
    """
    order = found.order
    if order == tuple(range(len(names))) and tuple(names) == rows.class_names:
        return rows
    lost = [name for name, k in zip(rows.class_names, order) if k is None]
    if lost and whole:
        raise InputError(f"the model has no class for {_some(lost)} of the rows", hint=_BY_HAND)
    number = torch.tensor([-1 if k is None else k for k in order])
    y = number[rows.data.y]
    kept = (y >= 0).nonzero().flatten()
    data = replace(rows.data, y=y.clamp_min(0))
    if len(kept) < len(rows):
        data = data.some(kept)
    ids = tuple(rows.ids[i] for i in kept.tolist())
    same = order == tuple(range(len(names))) and len(kept) == len(rows)
    return replace(rows, data=data, class_names=tuple(names), ids=ids, task=rows.task if same else None)


def contradiction(references: Sequence[str], model: Sequence[str] | None) -> str:
    """What is wrong where references number a class of the model otherwise; "" where nothing is known to be."""
    if not (model and named(model) and named(references)):
        return ""
    for at, k in enumerate(_by_name(references, model)):
        if k is not None and k != at:
            return (
                f"class {references[at]!r} has number {at} in the references and {k} in the model, so what was "
                "measured of one class would be compared with another"
            )
    return ""


def _told(
    order: Sequence[int | None], rows: Sequence[str], model: Sequence[str] | None, classes: int, *, by: str
) -> Matched:
    """With notes on what was reordered, is missing or left out. Raises InputError where too little is known."""
    taken = Counter(k for k in order if k is not None)
    shown = list(model) if model and named(model) else list(map(str, range(classes)))
    if twice := [k for k, n in taken.items() if n > 1] if by != "as --labels says" else []:
        both = [name for name, k in zip(rows, order) if k == twice[0]]
        raise InputError(f"{_some(both)} of the rows are both the model's class {shown[twice[0]]!r}", hint=_BY_HAND)
    lost = [name for name, k in zip(rows, order) if k is None]
    if len(taken) < 2 or (len(lost) > len(taken) and by == "by name"):
        raise InputError(
            f"{len(lost)} of the rows' {len(rows)} classes are none of the model's: {_some(lost)}; the model's are "
            f"{_some(shown)}",
            hint=_BY_HAND,
        )
    notes = []
    moved = sum(k is not None and k != i for i, k in enumerate(order))
    if moved:
        notes.append(f"{moved} of {len(rows)} classes of the rows have another number in the model: matched {by}")
    if absent := [shown[k] for k in range(classes) if k not in taken]:
        notes.append(f"{len(absent)} of the model's {classes} classes have no rows: {_some(absent)}")
    if lost:
        close = [f"{a} (is it {c[0]!r}?)" for a in lost[:3] if (c := difflib.get_close_matches(a, shown, 1, 0.6))]
        more = f"; {', '.join(close)}" if close else ""
        notes.append(f"rows of {len(lost)} classes that the model does not have are left out: {_some(lost)}{more}")
    return Matched(tuple(order), tuple(notes))


def _by_name(rows: Sequence[str], model: Sequence[str]) -> list[int | None]:
    """By the whole name, else by what is left of it without case and marks, else by one of its synonyms."""
    found: list[int | None] = [None] * len(rows)
    for spelt in (lambda name: [name], lambda name: [_plain(name)], _synonyms):
        known = Counter(word for name in model for word in set(spelt(name)))
        number = {word: k for k, name in enumerate(model) for word in spelt(name) if known[word] == 1}
        for at, name in enumerate(rows):
            if found[at] is None:
                hits = {number[word] for word in spelt(name) if word in number}
                found[at] = hits.pop() if len(hits) == 1 else None
    return found


def _plain(name: str) -> str:
    words = re.split(r"[\s_\-./]+", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(word for word in words if word)


def _synonyms(name: str) -> list[str]:
    """'tench, Tinca tinca' -> both of its names."""
    return [_plain(part) for part in name.split(",") if part.strip()]


def _by_number(rows: Sequence[str], classes: int) -> list[int | None]:
    """Rows that number their classes from 0, or from 1; others are taken in their order where none is missing."""
    numbers = [int(name) for name in rows]
    from_nought, from_one = max(numbers) < classes, min(numbers) >= 1 and max(numbers) <= classes
    if len(rows) == classes:
        return list(range(classes))
    if from_nought and (0 in numbers or not from_one):
        # torchvision numbers folders by their names as text; where one is missing, the others keep their numbers
        as_text = list(rows) == sorted(rows) and list(rows) != sorted(rows, key=int)
        place = {name: k for k, name in enumerate(sorted(map(str, range(classes))))}
        return [place[str(int(n))] if as_text else int(n) for n in rows]
    if from_one and classes in numbers:
        return [n - 1 for n in numbers]
    if from_one:
        raise InputError(
            f"the rows number their classes {_some(rows)}, the model has {classes}: from 0, or from 1?",
            hint="--labels " + ",".join(f"{n}={n}" for n in numbers[:3]) + (",..." if len(rows) > 3 else ""),
        )
    raise InputError(
        f"the rows number their classes {_some(rows)}, which do not fit the model's {classes} classes", hint=_BY_HAND
    )


def _by_hand(labels: str, rows: Sequence[str], model: Sequence[str] | None, classes: int) -> list[int | None]:
    if labels.strip() == SORTED:
        if len(rows) != classes:
            raise InputError(
                f"--labels sorted needs as many classes as the model has: it has {classes}, the rows {len(rows)}",
                hint="name them: --labels NAME=CLASS,...",
            )
        return list(range(classes))
    pairs = _pairs(labels)
    if unknown := [name for name in pairs if name not in rows]:
        raise InputError(f"--labels: the rows have no class {unknown[0]!r}", hint=f"they have {_some(rows, 20)}")
    return [None if name not in pairs else _number(pairs[name], model, classes) for name in rows]


def _pairs(labels: str) -> Mapping[str, Any]:
    text = labels.strip()
    if not text.startswith("{") and text.endswith(".json"):
        try:
            text = Path(text).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--labels {labels} cannot be read ({error})", hint=_BY_HAND) from None
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"--labels is no JSON object ({error})", hint="as in --labels '{\"cat\": 0}'") from None
        return {str(k): v for k, v in found.items()}
    pairs = [part.rpartition("=") for part in text.split(",")]
    if bad := [part for part, equals, _ in pairs if not equals]:
        raise InputError(f"--labels: {bad[0] or labels!r} is no NAME=CLASS", hint="as in --labels cat=0,dog=2")
    return {name.strip(): number.strip() for name, _, number in pairs}


def _number(said: Any, model: Sequence[str] | None, classes: int) -> int:
    names = list(model) if model and named(model) else []
    if str(said) in names:
        return names.index(str(said))
    if str(said).isdecimal() and int(said) < classes:
        return int(said)
    raise InputError(
        f"--labels: the model has no class {said!r}", hint=f"classes: {_some(names, 20) or f'0 to {classes - 1}'}"
    )


def _guessed(rows: Sequence[str]) -> str:
    told = ", ".join(f"{k} is {name!r}" for k, name in enumerate(rows[:3]))
    return (
        f"the classes of the rows do not say which of the model's they are, so they are taken in their order ({told}"
        f"{' ...' if len(rows) > 3 else ''}); where that is wrong: --class-names A,B,... in the model's order"
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name[:60]) for name in names[:most]) + more
