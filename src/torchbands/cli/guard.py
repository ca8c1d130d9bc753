"""`bands guard fit | check`."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.words import command_line

from . import console
from .output import Reports, folder_of, spare_inputs, write_whole
from .suspect_file import recall, remember
from .suspect_flags import Opened, limits, misreading, one_or_each, open_with, own_code

if TYPE_CHECKING:
    from torchbands.core.model import Model
    from torchbands.core.recipe import Network
    from torchbands.scanner.guard_files import Graph
    from torchbands.scanner.outcome import Outcome


def fit(given: argparse.Namespace) -> int:
    """Fit a detector for a model and save both. 0 done, 3 where the model was not opened."""
    from torchbands.scanner.batch_test import clean_to_name_one, fewest
    from torchbands.scanner.guard import CALIBRATE, Guard
    from torchbands.scanner.guard_files import KIND, read_card

    KIND.check(Path(given.out))
    with console.progress_bar() as bar:
        bar(0, None, "opening the model")
        opened = open_with(given, given.model, given.data)
        if opened.suspect.model is None or opened.rows is None:
            why = opened.suspect.alerts[0].message if opened.suspect.alerts else "it holds no model that is known here"
            console.note(f"the model was not opened: {why}")
            return 3
        if (wrong := misreading(given, opened)) is not None and wrong.unread:
            console.note("no guard was fitted: the model does not understand this data, so its outputs mean nothing")
            return 3
        bar(0, None, f"fitting {given.detector}")
        guard = Guard(opened.suspect.model, detector=given.detector, alpha=given.alpha, seed=given.seed)
        try:
            guard.fit(opened.rows.data)
        except NotApplicable as error:
            raise InputError(
                f"{given.detector} cannot guard this model: {error.reason}",
                hint="a black box can have: --detector strip",
            ) from None
    remember(given, given.model)
    network, graph = _network(opened), _graph(given, opened)
    folder = guard.save(given.out, network=network, graph=graph)
    again = _again(given, folder, known=graph is not None or read_card(folder)["network"] is not None)
    clean = len(guard.calibration)
    least, enough = fewest(clean, given.batch, guard.alpha), clean_to_name_one(given.batch, guard.alpha)
    told = {
        "guard": str(folder),
        "detector": guard.detector.name,
        "alpha": guard.alpha,
        "calibrated_on": clean,
        "smallest_p": 1 / (clean + 1),
        "batch": given.batch,
        "fewest_triggered": least,
        "clean_rows_to_name_one": math.ceil(enough / CALIBRATE),
        "extra_forward_passes_per_input": guard.overhead,
        "check": again,
    }
    if given.json:
        console.print_json(told)
        return 0
    console.note(
        f"{guard.detector.name} calibrated on {clean} clean rows: flags about {guard.alpha:.1%} of "
        f"ordinary inputs, costs {guard.overhead:g} more forward passes per input"
    )
    seen = "no number of triggered inputs" if least is None else f"{least} triggered inputs or more"
    console.note(
        f"in a batch of {given.batch}, `guard check` can notice {seen}; to name a single one at alpha {guard.alpha:g}, "
        f"fit with {math.ceil(enough / CALIBRATE)} clean rows or more ({enough} of them calibrate)"
    )
    console.note(f"check inputs with: {again}")
    print(folder)
    return 0


def check(given: argparse.Namespace) -> int:
    """Give every input a p-value. 1 where the batch is not ordinary, 3 where that could not be seen, else 0."""
    is_table = given.out is not None and given.out.lower().endswith(".csv")
    folder = folder_of(given.out)
    table_to = Path(given.out) if is_table else folder / "inputs.csv" if folder else None
    if table_to is not None:
        spare_inputs(given, [table_to])
    reports = Reports.of(given, out=None if is_table else given.out)
    return reports.guarded(lambda: _check(given, table_to), "input", given.inputs)


def _check(given: argparse.Namespace, table_to: Path | None) -> Outcome:
    from torchbands.scanner.guard import Guard
    from torchbands.scanner.guard_files import read_card
    from torchbands.scanner.input_rows import read_inputs
    from torchbands.scanner.inputs import judge_inputs, table

    card = read_card(given.guard)  # what is no guard is told before a model is opened
    recall(given, given.model or given.guard)
    own_code(given.arch)
    model = _guarded(given, card) if given.model is not None else None
    guard = Guard.load(given.guard, model=model, arch=given.arch, limits=limits(given))
    reads, classes = guard.model.modality, guard.model.classes
    rows = read_inputs(given.inputs, reads, classes, text=given.text_column, label=given.label_column)
    for remark in rows.notes:
        console.note(f"note: {remark}")
    if rows.refused:
        name, why = rows.refused[0]
        console.note(f"note: {len(rows.refused)} files of {rows.label} were left out, such as {name!r}: {why}")
    outcome, judged = judge_inputs(guard, rows)
    if table_to is not None:
        write_whole(table_to, table(rows, judged))
    return outcome


def _guarded(given: argparse.Namespace, card: Mapping[str, Any]) -> Model:
    """The model that the user names beside a guard, as one that reads what the guard's does."""
    from torchbands.scanner.guard_files import CARD
    from torchbands.scanner.opening import open_suspect
    from torchbands.zoo.modality import read_modality

    if not os.path.lexists(given.model):
        raise InputError(f"there is no {given.model}", hint="name the model that the guard was fitted for")
    modality = read_modality(card["modality"], Path(given.guard), Path(given.guard) / CARD)
    suspect = open_suspect(
        given.model,
        arch=given.arch,
        modality=modality,
        classes=int(card["classes"]),
        output=given.output,
        mean=one_or_each(given.mean),
        std=one_or_each(given.std),
        allow_pickle=given.allow_pickle,
        limits=limits(given),
    )
    if suspect.model is None:
        why = suspect.alerts[0].message if suspect.alerts else "it holds no model that is known here"
        raise InputError(f"{given.model} was not opened: {why}")
    return suspect.model


def _graph(given: argparse.Namespace, opened: Opened) -> Graph | None:
    """The ONNX file, which a guard keeps."""
    from torchbands.scanner.guard_files import Graph

    suspect = opened.suspect
    if suspect.format != "onnx":
        return None
    mean, std = one_or_each(given.mean), one_or_each(given.std)
    return Graph(Path(given.model), suspect.sha256, mean, std, suspect.facts.get("output"))


def _again(given: argparse.Namespace, folder: Path, *, known: bool) -> str:
    """The command that checks inputs. Only the user names code and other folders: the guard does not keep them."""
    words = ["bands", "guard", "check", str(folder), "INPUTS"]
    if not known and given.arch is not None:
        words += ["--arch", given.arch]
    elif not known:
        words += ["--model", given.model]
    return command_line(words)


def _network(opened: Opened) -> Network | None:
    """The architecture, where it is a registered one."""
    from torchbands.core.errors import BandsError
    from torchbands.core.recipe import Network
    from torchbands.core.registry import build
    from torchbands.core.task import Task

    facts, card = opened.suspect.facts, Path(opened.suspect.path) / "card.json"
    try:
        if "network" in facts:
            made = build(facts["network"], "network", origin=card)
            return made if isinstance(made, Network) else None
        task = build(facts["task"], "task", origin=card) if "task" in facts else None
    except BandsError:
        return None
    return task.network if isinstance(task, Task) else None
