"""Turns the flags of the scanner's commands into an opened model, its data and its references."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchbands.core.errors import InputError

from . import console
from .printed_command import concrete
from .suspect_file import recall

if TYPE_CHECKING:
    from torchbands.core.modality import Modality
    from torchbands.scanner.misread import Misread
    from torchbands.scanner.opening import Limits, Suspect
    from torchbands.scanner.references import ReferenceSet
    from torchbands.scanner.rows import Rows


@dataclass(frozen=True)
class Opened:
    """A suspect with the data and references given for it."""

    suspect: Suspect
    rows: Rows | None = None
    refs: ReferenceSet | None = None
    class_names: tuple[str, ...] | None = None


def open_with(
    given: argparse.Namespace,
    path: str,
    data: str | None,
    refs: Sequence[str] = (),
    *,
    split: str = "clean",
    whole: bool = False,
) -> Opened:
    """Open a suspect; what the flags leave out is taken from the references, then from the rows.

    The labels of the rows become the model's: by name where both name their classes.

    Args:
        whole: whether all of the rows are needed, so that none may be left out.

    Raises InputError for what is not there, cannot be read or contradicts itself.
    """
    from torchbands.scanner.opening import open_suspect

    if not os.path.lexists(path):
        raise InputError(f"there is no {path}", hint="name a model file or folder")
    recall(given, path)
    reference_set = references(refs)
    rows = rows_of(given, data, split) if data else None
    classes, modality = given.classes, rows.modality if rows is not None else None
    if reference_set is not None:
        modality, classes = reference_set.modality, classes or reference_set.classes
    own_code(given.arch)
    suspect = open_suspect(
        path,
        arch=given.arch or _arch(reference_set, rows),
        modality=modality,
        classes=classes,
        likely=rows.classes if rows is not None else None,
        output=given.output,
        mean=one_or_each(given.mean),
        std=one_or_each(given.std),
        allow_pickle=given.allow_pickle,
        limits=limits(given),
    )
    for remark in suspect.facts.get("notes", ()):
        console.note(f"note: {remark}")
    if suspect.facts.get("normalisation") == "none":
        console.note(
            "note: the file brings no normalisation, so samples go in as they are; "
            "where the model was trained on standardised ones, give --mean and --std"
        )
    if rows is not None and data and suspect.model is not None:
        rows = _fitting(given, rows, data, split, suspect.model.modality)
        _readable(rows, data, suspect.model.modality)
    names = _class_names(given, suspect)
    if reference_set is not None and suspect.model is not None:
        _same_order(reference_set, names)
    elif rows is not None and suspect.model is not None:
        suspect, rows = _matched(given, suspect, rows, names, whole)
    known = [
        names or (),
        reference_set.class_names if reference_set is not None else (),
        rows.class_names if rows else (),
    ]
    count = None if suspect.model is None else suspect.model.classes
    return Opened(suspect, rows, reference_set, next((n for n in known if n and len(n) == count), None))


def misreading(given: argparse.Namespace, opened: Opened) -> Misread | None:
    """What is wrong where the model does not know the rows, with a loud word about it on stderr."""
    from torchbands.scanner.misread import Claim, misread

    if opened.suspect.model is None or opened.rows is None:
        return None
    said = opened.suspect.facts.get("claimed_accuracy")
    wrong = misread(opened.suspect.model, opened.rows.data, claim=Claim(**said) if said else None)
    if wrong is not None:
        names = opened.class_names or ()
        step = concrete(wrong.next_step(names), given, opened.suspect.path)
        console.note(f"ATTENTION: {wrong.reason(names)}\n  {step}")
    return wrong


def rows_of(given: argparse.Namespace, source: str, split: str = "clean", *, like: Modality | None = None) -> Rows:
    """Labelled rows, with a word on stderr about what was left out or assumed. like: what the model reads, if known."""
    from torchbands.scanner.reading import read_rows

    label, text = getattr(given, "label_column", None), getattr(given, "text_column", None)
    shape = {"size": given.size, "channels": given.channels}
    rows = read_rows(source, **shape, split=split, label=label, text=text, like=like)
    for remark in rows.notes:
        console.note(f"note: {remark}")
    if rows.refused:
        name, why = rows.refused[0]
        console.note(f"note: {len(rows.refused)} files of {rows.label} were left out, such as {name!r}: {why}")
    return rows


def references(refs: Sequence[str]) -> ReferenceSet | None:
    """One folder of reference models."""
    from torchbands.scanner.references import ReferenceSet

    if not refs:
        return None
    if len(refs) > 1:
        raise InputError(
            "references lie in one folder, got " + ", ".join(refs),
            hint="for a pool over recipes: bands refs train --recipe ... --recipe ... -o DIR",
        )

    found = ReferenceSet.load(refs[0])
    if without := found.unsummed():
        console.note(
            f"note: {without} cards in {refs[0]} have no checksum, since an older version wrote them: whether somebody "
            "altered them cannot be checked; newly trained references have one"
        )
    return found


def one_or_each(given: tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    """A single number applies to all channels."""
    return given[0] if given is not None and len(given) == 1 else given


def limits(given: argparse.Namespace) -> Limits:
    """Resource limits for opening a file."""
    from torchbands.scanner.opening import Limits

    asked = Limits()
    if given.time_limit is not None:
        asked = replace(asked, seconds=given.time_limit)
    return asked if given.memory_limit is None else replace(asked, megabytes=given.memory_limit)


def own_code(arch: str | None) -> None:
    """Make modules in the current folder importable, after everything that is installed."""
    here = str(Path.cwd())
    if arch and ":" in arch and ".py:" not in arch and not arch.lstrip().startswith("{") and here not in sys.path:
        sys.path.append(here)


def _arch(reference_set: ReferenceSet | None, rows: Rows | None) -> str | None:
    """A network's spec from the references or the task; never code: that is named by the user alone."""
    from torchbands.core.registry import build

    if reference_set is not None:
        spec = reference_set.card["architecture"]
        if not isinstance(spec, dict):
            return None
        build(spec, "network", origin=reference_set.folder / "card.json")  # refuses what only the user may name
        return json.dumps(spec)
    return None if rows is None or rows.task is None else json.dumps(rows.task.network.spec())


def _fitting(given: argparse.Namespace, rows: Rows, data: str, split: str, modality: Modality) -> Rows:
    """Rows of files, read once more so that they have the size that the model reads."""
    if modality == rows.modality or rows.task is not None or type(modality) is not type(rows.modality):
        return rows
    if not modality.reader_settings() and not modality.reads(Path(data)):
        return rows  # they have no size that could be asked for
    return rows_of(given, data, split, like=modality)


def _readable(rows: Rows, data: str, reads: Modality) -> None:
    """Raises InputError where the model reads another kind of sample than the rows are."""
    import torch

    from torchbands.core.data import take

    try:
        reads.check(take(rows.data.x, torch.arange(1)))
    except InputError as error:
        raise InputError(
            f"the model does not read the rows of {data}: {error.message}",
            hint="name rows of the kind that the model was trained on: --data SOURCE",
        ) from None


def _class_names(given: argparse.Namespace, suspect: Suspect) -> tuple[str, ...] | None:
    """The model's classes in its order: as the user says, else as it says itself; None where nobody does."""
    from torchbands.scanner.class_order import named

    own = tuple(map(str, suspect.facts.get("class_names") or ()))
    if given.class_names is None:
        return own if named(own) else None
    names = tuple(name.strip() for name in given.class_names.split(","))
    if suspect.model is not None and len(names) != suspect.model.classes:
        raise InputError(f"--class-names has {len(names)} names, the model has {suspect.model.classes} classes")
    if named(own) and own != names:
        console.note(f"note: the model calls its classes {', '.join(own[:4])} ...; --class-names takes precedence")
    return names


def _matched(
    given: argparse.Namespace, suspect: Suspect, rows: Rows, names: tuple[str, ...] | None, whole: bool
) -> tuple[Suspect, Rows]:
    """The rows with the model's labels; what was reordered, is missing or left out is told, and kept in the facts."""
    from torchbands.scanner.class_order import matched, renumbered

    assert suspect.model is not None
    classes = suspect.model.classes
    found = matched(rows.class_names, names, classes, getattr(given, "labels", None))
    notes = () if rows.task is not None and rows.classes == classes and names is None else found.notes
    for remark in notes:
        console.note(f"note: {remark}")
    same = found.order == tuple(range(classes))
    made = renumbered(
        rows, found, names or (rows.class_names if same else tuple(map(str, range(classes)))), whole=whole
    )
    return replace(suspect, facts={**suspect.facts, "labels": list(notes)}) if notes else suspect, made


def _same_order(reference_set: ReferenceSet, names: tuple[str, ...] | None) -> None:
    """Raises InputError where the references number a class otherwise than the model does."""
    from torchbands.scanner.class_order import contradiction

    if said := contradiction(reference_set.class_names, names):
        raise InputError(
            said, hint="train references with the model's numbers: bands refs train --like SUSPECT --data CLEAN -o DIR"
        )
