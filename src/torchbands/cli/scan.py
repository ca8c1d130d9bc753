"""`bands scan model | data`."""

from __future__ import annotations

import argparse
import datetime
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchbands import __version__
from torchbands.core.errors import BandsError, InputError

from . import console
from .output import Reports, folder_of, spare_inputs
from .printed_command import concrete
from .suspect_file import remember
from .suspect_flags import Opened, misreading, open_with, rows_of

if TYPE_CHECKING:
    from torchbands.core.data import Data
    from torchbands.scanner.outcome import Outcome
    from torchbands.scanner.rows import Rows

_NO_REFERENCES = (
    "neither reference models nor clean rows were given: name them with --refs DIR (made by: bands refs train "
    "--like SUSPECT --data CLEAN -o DIR), or at least --data CLEAN"
)


def model(given: argparse.Namespace) -> int:
    """Open a suspect, judge it, report. 0 nothing at or above --fail-on, 1 findings, 3 inconclusive."""
    reports = Reports.of(given, out=given.out)
    return reports.guarded(lambda: _model(given), "model", given.suspect)


def _model(given: argparse.Namespace) -> Outcome:
    with console.progress_bar() as bar:
        bar(0, None, "opening the suspect")
        training = given.train_references is not None
        if training and (given.refs or not given.data):
            raise InputError(
                "--train-references needs clean rows to train on, and no other references",
                hint="as in --data CLEAN --train-references; or --refs DIR where they are trained already",
            )
        opened = open_with(given, given.suspect, given.data, given.refs, split="train" if training else "clean")
        if opened.suspect.model is None:
            return _unjudged(opened, given, "the model was not opened: " + _why(opened))
        if not getattr(given, "forget", False):
            remember(given, given.suspect)
        unread = (
            training and (wrong := misreading(given, opened)) is not None and wrong.unread
        )  # then nothing is trained
        if training and not unread:
            opened = _with_references(given, opened, bar)
        if opened.refs is None and opened.rows is None:
            return _unjudged(opened, given, concrete(_NO_REFERENCES, given))
        if opened.refs is not None and opened.rows is not None:
            console.note(
                "note: the references keep the clean rows that every model is looked at with; --data is not used"
            )
        from torchbands.scanner.scan_model import scan

        outcome = scan(
            opened.suspect.model,
            None if opened.rows is None else opened.rows.data,
            opened.refs,
            profile=given.profile,
            alpha=given.alpha,
            seed=given.seed,
            class_names=opened.class_names,
            subject=opened.suspect.subject(),
            progress=lambda done, total, what: bar(done, total, what),
            announce=None if unread else console.note,
        ).adding(opened.suspect.alerts)
        return replace(outcome, next_steps=tuple(concrete(step, given) for step in outcome.next_steps))


def _with_references(given: argparse.Namespace, opened: Opened, bar: console.Bar) -> Opened:
    """The suspect with references that are trained now, or were by the same command before."""
    from .refs import trained

    name = Path(given.suspect).resolve().name.removesuffix(Path(given.suspect).suffix)
    folder = Path(given.train_references or f"{name}-refs")
    reference_set = trained(given, opened, opened.rows, folder, bar)
    console.note(f"references: {folder}; scan others of the same network with --refs {folder}")
    return replace(opened, refs=reference_set, rows=None, class_names=opened.class_names or reference_set.class_names)


def data(given: argparse.Namespace) -> int:
    """Rank the rows of a data set, report the worst. 0 nothing at or above --fail-on, 1 findings, 3 inconclusive."""
    reports = Reports.of(given, out=given.out)
    return reports.guarded(lambda: _data(given), "data", given.source)


def _data(given: argparse.Namespace) -> Outcome:
    from torchbands.scanner.dataset import scan_data

    folder = folder_of(given.out)
    if folder is not None:
        spare_inputs(given, [folder / name for name in ("scores.csv", "cleaned.csv", "cleaned.txt")])
    with console.progress_bar() as bar:
        bar(0, None, "reading")
        suspect = None
        if given.model:
            opened = open_with(given, given.model, given.source, split="train", whole=True)
            suspect, rows = opened.suspect.model, opened.rows
            if suspect is None:
                raise BandsError(f"{given.model}: {_why(opened)}", hint=f"see: bands scan model {given.model}")
            assert rows is not None
            misreading(given, opened)
        else:
            rows = rows_of(given, given.source, "train")
        outcome = scan_data(
            rows,
            model=suspect,
            clean=_trusted(given, rows) if given.clean else None,
            false_alarms=given.false_alarms,
            profile=given.profile,
            seed=given.seed,
            folder=folder,
            test=given.profile == "full",
            progress=lambda done, total, what: bar(done, total, what),
        )
    kept = "scores.csv, cleaned.csv and cleaned.txt"
    console.note(f"{kept} are in {folder}" if folder and outcome.methods else f"name a folder with -o DIR/ for {kept}")
    return outcome


def _trusted(given: argparse.Namespace, rows: Rows) -> Data:
    """The rows of --clean, with the labels that the same names have in the data."""
    from torchbands.scanner.class_order import matched, renumbered

    trusted = rows_of(given, given.clean)
    if trusted.class_names == rows.class_names:
        return trusted.data
    found = matched(trusted.class_names, rows.class_names, rows.classes)
    for remark in found.notes:
        console.note(f"note: --clean: {remark}")
    return renumbered(trusted, found, rows.class_names).data


def _why(opened: Opened) -> str:
    return opened.suspect.alerts[0].message if opened.suspect.alerts else "it holds no model that is known here"


def _unjudged(opened: Opened, given: argparse.Namespace, reason: str) -> Outcome:
    """What opening alone tells: never that nothing was found."""
    from torchbands.scanner.outcome import Answer, Outcome

    unasked = Answer(None, reason="the model was not judged")
    return Outcome(
        opened.suspect.subject(),
        trigger=unasked,
        recipe=unasked,
        not_covered=("everything but the file itself: no view looked at the model",),
        reasons=(reason,),
        profile=given.profile,
        alpha=given.alpha,
        seed=given.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    ).adding(opened.suspect.alerts)
