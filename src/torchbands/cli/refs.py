"""`bands refs train | add | show`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import BandsError, InputError
from torchbands.core.words import quoted

from . import console
from .printed_command import concrete
from .suspect_flags import Opened, misreading, open_with, rows_of

if TYPE_CHECKING:
    from torchbands.core.data import Data
    from torchbands.core.modality import Modality
    from torchbands.core.recipe import Learner, Network
    from torchbands.core.task import Task
    from torchbands.scanner.references import ReferenceSet
    from torchbands.scanner.rows import Rows

_FLAGS = ("epochs", "lr", "batch", "label_smoothing", "augment", "optimizer")
INCONCLUSIVE = 3


def train(given: argparse.Namespace) -> int:
    """Train what is missing of a reference set; the same command goes on where it stopped."""
    if given.count < 1:
        raise InputError(f"-n is at least 1, got {given.count}")
    if not given.like and not given.data:
        raise InputError("give the model and clean data to train references for", hint="--like SUSPECT --data CLEAN")
    with console.progress_bar() as bar:
        bar(0, None, "reading")
        opened = open_with(given, given.like, given.data, split="train") if given.like else None
        rows = opened.rows if opened is not None else rows_of(given, given.data, "train")
        if opened is not None:
            misreading(given, opened)
        reference_set = trained(given, opened, rows, Path(given.out), bar)
    return _tell(reference_set, given)


def trained(
    given: argparse.Namespace, opened: Opened | None, rows: Rows | None, folder: Path, bar: console.Bar
) -> ReferenceSet:
    """References of an opened suspect, or of the network that --arch names, on these rows."""
    from torchbands.core.recipe import Recipe
    from torchbands.scanner.reference_training import train_references

    if opened is not None and opened.suspect.model is None:
        why = opened.suspect.alerts[0].message if opened.suspect.alerts else "it holds no model"
        raise InputError(
            f"{opened.suspect.path} was not opened: {why}", hint=f"see: bands scan model {opened.suspect.path}"
        )
    task = _task(opened, rows)
    _enough(given)
    data, clean, per_model = _data(rows, task, given)
    modality = _modality(opened, rows, task)
    names = tuple(map(str, task.class_names)) if task is not None else rows.class_names if rows is not None else ()
    network = _network(given, opened, task)
    of_suspect = _task(opened, None)
    found, pool = recipes(of_suspect or task, of_suspect is not None, given, modality, per_model or len(data))
    if pool:
        console.note(
            f"note: the suspect's training recipe is unknown, so the references are a pool over {len(found)} recipes; "
            "if you know it, give it: --train YOUR_CODE:FUNCTION, or --one-recipe with --epochs, --lr, ..."
        )
    return train_references(
        folder,
        [Recipe(network, learner, modality, len(names)) for learner in found],
        data,
        names,
        n=given.count,
        rows=per_model,
        settles=pool,
        clean=clean,
        profile=given.profile,
        seed=given.seed,
        label=task.name if task is not None else str(given.data),
        add=given.add,
        progress=lambda done, total, what: bar(done, total, f"{what}: number {done + 1}"),
        announce=console.note,
    )


def _enough(given: argparse.Namespace) -> None:
    """Says before hours of training that so few references can conclude nothing."""
    alpha = getattr(given, "alpha", 0.05)
    least = math.ceil(1 / alpha - 1e-9) - 1
    if given.count < least and not given.add:
        console.note(
            f"note: with {given.count} references p is never below {1 / (given.count + 1):.2g}, so alpha {alpha:g} is "
            f"out of reach and a scan will be inconclusive: -n {least} or more"
        )


def recipes(
    task: Task | None, known: bool, given: argparse.Namespace, modality: Modality, rows: int
) -> tuple[tuple[Learner, ...], bool]:
    """How references are trained, and whether that is a pool of guesses around the task's recipe or the default.

    Args:
        known: whether the task is the suspect's own, so that its recipe is known.
    """
    from torchbands.learners.sgd import SGD
    from torchbands.scanner.recipes import OwnTraining, long_enough, pool_around

    own = tuple(OwnTraining.read(text) for text in given.train)
    if own:
        return own + (learners(task.learner if task is not None else SGD(), given) if given.recipe else ()), False
    base = task.learner if task is not None else long_enough(SGD(), rows)
    if given.optimizer == "adamw" and given.lr is None and getattr(base, "optimizer", "") == "sgd":
        base = base.but(lr=2e-3)  # a rate for SGD makes AdamW diverge
    made = learners(base, given)
    if known or given.one_recipe or given.recipe:
        return made, False
    fixed = [name for name in _FLAGS if getattr(given, name) is not None]
    pool = pool_around(made[0], modality, fixed)
    return pool, len(pool) > 1


def add(given: argparse.Namespace) -> int:
    """Keep clean models that somebody trained as references, in a folder that is there or in a new one."""
    from torchbands.scanner.reference_files import CARD
    from torchbands.scanner.reference_training import add_checkpoint, start_empty
    from torchbands.scanner.references import ReferenceSet

    folder, new = Path(given.refs), 0
    there = (folder / CARD).is_file()
    if not there and not given.data:
        raise InputError(
            f"{folder} holds no references yet, so clean rows to look with are needed",
            hint="name rows that none of the checkpoints was trained on: --data SOURCE",
        )
    with console.progress_bar() as bar:
        reference_set = ReferenceSet.load(folder) if there else None
        for at, path in enumerate(given.checkpoints):
            bar(at, len(given.checkpoints), f"looking at {path}")
            opened = open_with(given, path, None if there else given.data, [str(folder)] if there else ())
            model = opened.suspect.model
            if model is None or "weights" not in model.capabilities:
                why = opened.suspect.alerts[0].message if opened.suspect.alerts else "it gives predictions only"
                raise InputError(f"{path} is not a reference: {why}", hint="name checkpoints with weights")
            if reference_set is None:
                assert opened.rows is not None
                names, label = opened.rows.class_names, str(given.data)
                what = opened.suspect.facts.get("network") or given.arch or opened.suspect.format
                reference_set = start_empty(folder, what, opened.rows.data, model.modality, names, label)
            new += add_checkpoint(reference_set, model, given.profile, str(path))
    assert reference_set is not None
    console.note(
        f"{new} of {len(given.checkpoints)} checkpoints are new references; that they are clean is taken on trust"
    )
    return _tell(reference_set, given)


def show(given: argparse.Namespace) -> int:
    """What a set of references is. 3 where it has no finished model."""
    from torchbands.scanner.references import ReferenceSet

    return _tell(ReferenceSet.load(given.refs), given)


def learners(base: Learner, given: argparse.Namespace) -> tuple[Learner, ...]:
    """The training recipes: the base with the flags' changes, once for each --recipe."""
    from torchbands.core.recipe import Learner
    from torchbands.core.registry import build

    flags = {name: value for name in _FLAGS if (value := getattr(given, name)) is not None}
    changed = base.but(**flags)
    made = [_learner(changed, text) for text in given.recipe] or [changed]
    checked = [build(learner.spec(), "learner") for learner in made]
    return tuple(learner for learner in checked if isinstance(learner, Learner))


def _learner(base: Learner, text: str) -> Learner:
    from torchbands.core.recipe import Learner
    from torchbands.core.registry import build
    from torchbands.core.spec_text import read

    try:
        found: Any = read(text) if "(" in text and not text.lstrip().startswith("{") else json.loads(text)
    except ValueError as error:
        raise InputError(
            f"--recipe is not valid JSON ({error}): {text}",
            hint="as in --recipe '{\"epochs\": 10}', or --recipe 'sgd(epochs=10)'",
        ) from None
    if not isinstance(found, Mapping):
        raise InputError(f"--recipe is a JSON object of settings, got {text}")
    made = build(found, "learner") if "name" in found else base.but(**found)
    assert isinstance(made, Learner)
    return made


def _task(opened: Opened | None, rows: Rows | None) -> Task | None:
    """The task of the rows; without rows, the one that the victim's card names."""
    from torchbands.core.registry import build
    from torchbands.core.task import Task

    if rows is not None:
        return rows.task
    spec = opened.suspect.facts.get("task") if opened is not None else None
    if spec is None:
        return None
    assert opened is not None
    task = build(spec, "task", origin=Path(opened.suspect.path) / "card.json")
    assert isinstance(task, Task)
    return task


def _data(rows: Rows | None, task: Task | None, given: argparse.Namespace) -> tuple[Data, Data | None, int]:
    """Training rows, rows for the views (None: held out of the training rows), and rows of each reference."""
    if task is not None:
        per_model = given.rows if given.rows is not None else int(getattr(task, "rows", 0))
        whole = task.but(rows=0) if getattr(task, "rows", 0) else task
        if rows is None:
            console.note(f"note: trained on {task.name}, as the suspect's card says; name other clean rows with --data")
        return whole.load("train", given.seed), whole.load("clean", given.seed), per_model
    if rows is None:
        raise InputError("references need clean labelled data", hint="name them with --data SOURCE")
    return rows.data, None, given.rows or 0


def _modality(opened: Opened | None, rows: Rows | None, task: Task | None) -> Modality:
    if opened is not None and opened.suspect.model is not None:
        return opened.suspect.model.modality
    if task is not None:
        return task.modality
    assert rows is not None
    return rows.modality


def _network(given: argparse.Namespace, opened: Opened | None, task: Task | None) -> Network:
    """What the references are built by."""
    if opened is not None:
        from torchbands.scanner.untrained import untrained_like

        return untrained_like(opened.suspect, given.arch)
    from torchbands.scanner.opening.architecture import network_of

    if given.arch is None and task is None:
        raise InputError(
            "the network of the references is missing", hint="name a model with --like, or a network with --arch"
        )
    if given.arch and ":" in given.arch and not given.arch.lstrip().startswith("{"):
        raise InputError("references of your own network need a model as a template", hint="name it: --like SUSPECT")
    network = network_of(given.arch) if given.arch else task.network if task is not None else None
    assert network is not None
    return network


def _tell(reference_set: ReferenceSet, given: argparse.Namespace) -> int:
    found = reference_set.summary() | {
        "folder": str(reference_set.folder),
        "smallest_p": round(1 / (len(reference_set) + 1), 5),
    }
    if given.json:
        console.print_json(found)
    else:
        for name, value in found.items():
            print(f"{name.replace('_', ' '):<14} {_shown(value)}")
        few = len(reference_set) < 19
        console.note(
            "too few for alpha 0.05, which needs at least 19"
            if few
            else concrete(f"scan with: bands scan model SUSPECT --refs {quoted(str(reference_set.folder))}", given)
        )
    return 0 if len(reference_set) else INCONCLUSIVE


def _shown(value: Any) -> str:
    """A method's spec as its label; anything else as JSON on one plain line."""
    from torchbands.core.registry import build
    from torchbands.report.scan.formatting import plain
    from torchbands.scanner.recipes import told

    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return "; ".join(plain(told(v)) for v in value)
    if isinstance(value, dict) and "name" in value:
        try:
            return plain(build(value, origin="card.json").label())
        except BandsError:
            pass
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
