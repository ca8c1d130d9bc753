"""`bands guard fit | check`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from torchbands.core.errors import InputError, NotApplicable

from . import console
from .opened import Opened, open_with
from .output import Reports, folder_of, write_whole

if TYPE_CHECKING:
    from torchbands.core.task import Network
    from torchbands.scanner.outcome import Outcome


def fit(given: argparse.Namespace) -> int:
    """Fit a detector beside a model and keep both. 0 done, 3 where the model was not opened."""
    from torchbands.scanner.batch_test import clean_to_name_one, fewest
    from torchbands.scanner.guard import CALIBRATE, Guard
    from torchbands.scanner.guard_files import KIND

    KIND.check(Path(given.out))
    with console.progress_bar() as bar:
        bar(0, None, "opening the model")
        opened = open_with(given, given.model, given.data)
        if opened.suspect.model is None or opened.rows is None:
            why = opened.suspect.alerts[0].message if opened.suspect.alerts else "it holds no model that is known here"
            console.note(f"the model was not opened: {why}")
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
    folder = guard.save(given.out, network=_network(opened))
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
    print(folder)
    return 0


def check(given: argparse.Namespace) -> int:
    """Give every input a p-value. 1 where the batch is not ordinary, 3 where that could not be seen, else 0."""
    is_table = given.out is not None and given.out.lower().endswith(".csv")
    folder = folder_of(given.out)
    table_to = Path(given.out) if is_table else folder / "inputs.csv" if folder else None
    reports = Reports.of(given, out=None if is_table else given.out)
    return reports.guarded(lambda: _check(given, table_to), "input", given.inputs)


def _check(given: argparse.Namespace, table_to: Path | None) -> Outcome:
    from torchbands.modalities.image import Image
    from torchbands.scanner.guard import Guard
    from torchbands.scanner.inputs import judge_inputs, table
    from torchbands.scanner.rows import read_rows

    guard = Guard.load(given.guard)
    reads = guard.model.modality
    size, channels = (reads.size, reads.channels) if isinstance(reads, Image) else (None, None)
    rows = read_rows(given.inputs, size=size, channels=channels, split="test")
    if rows.refused:
        name, why = rows.refused[0]
        console.note(f"note: {len(rows.refused)} files of {rows.label} were left out, such as {name!r}: {why}")
    outcome, judged = judge_inputs(guard, rows)
    if table_to is not None:
        write_whole(table_to, table(rows, judged))
    return outcome


def _network(opened: Opened) -> Network | None:
    """The architecture, where it is a registered one."""
    from torchbands.core.errors import BandsError
    from torchbands.core.registry import build
    from torchbands.core.task import Network, Task

    facts, card = opened.suspect.facts, Path(opened.suspect.path) / "card.json"
    try:
        if "network" in facts:
            made = build(facts["network"], "network", origin=card)
            return made if isinstance(made, Network) else None
        task = build(facts["task"], "task", origin=card) if "task" in facts else None
    except BandsError:
        return None
    return task.network if isinstance(task, Task) else None
