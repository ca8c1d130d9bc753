"""`torchbands.scan`: every view looks, the references calibrate, two answers come out, and the ledger explains them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from torchbands import __version__
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.measures.cost import measured

from .attempt import Attempt
from .evidence import gather
from .in_memory_columns import Numbers
from .misread import AGAIN, Claim, Misread, misread
from .next_steps import NOT_COVERED, next_steps, not_searched
from .outcome import Answer, Outcome, Subject
from .predictor import keeps_modes
from .references import VIEW_SEED, ReferenceSet
from .shown_trigger import Shown, show
from .sizes import sizes_of
from .strongest import Strongest, with_trigger
from .suspect_model import names_of, suspect_and_rows
from .verdict import verdict_of
from .view_cache import How
from .views import Seen, look, views_of


@keeps_modes
def scan(
    model: nn.Module | Model | Any,
    data: Any = None,
    refs: str | Path | ReferenceSet | None = None,
    *,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    profile: str = "full",
    alpha: float = 0.05,
    seed: int = VIEW_SEED,
    class_names: Sequence[str] | None = None,
    subject: Subject | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Outcome:
    """May this model be trusted? Two calibrated answers with the evidence behind them.

    Args:
        model: any nn.Module that takes raw samples (normalisation inside), or a `Model`.
        data: clean labelled rows, in whatever `rows_of` takes: (x, y), a DataLoader, a data set, a pandas frame ...
            Not needed with `refs`, which keep theirs.
        mean, std: what is subtracted from images and divided by before `model`, a network that has no such layer;
            rows that a loader normalised so are brought back to [0, 1].
        refs: reference models of the suspect's recipe, or their folder. Without them the evidence is shown
            uncalibrated and the result is inconclusive.
        profile: "fast" (seconds for small networks) or "full".
        alpha: false-alarm level of each answer.
        subject: what was opened, for the report.
        announce: told what is wrong with how the model reads the rows, and how long the views will take, before they
            start.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a share between 0 and 1, got {alpha}")
    reference_set = ReferenceSet.load(refs) if isinstance(refs, (str, Path)) else refs
    suspect, clean, rows = suspect_and_rows(model, data, reference_set, mean, std)
    named = None if rows is None or rows.classes != suspect.classes else rows.class_names
    names = names_of(named if class_names is None else class_names, reference_set, suspect)
    changed = suspect.facts.get("notes", ())
    subject = subject or _subject(model, (*changed, *(() if rows is None else rows.notes)))
    views = views_of(profile, suspect)
    lowest = None if reference_set is None else (reference_set.summary()["accuracy"] or [None])[0]
    wrong = misread(suspect, clean, lowest, _claim(subject))
    if wrong is not None and announce is not None:
        announce(f"ATTENTION: {wrong.reason(names)}")
    if wrong is not None and wrong.unread:
        return _unread(wrong, names, subject, reference_set, profile, alpha, seed)
    with measured(suspect) as cost:
        drawn = seed if reference_set is None else VIEW_SEED
        seen = look(suspect, clean, views, seed=drawn, progress=progress, announce=announce)
        made = gather(seen, suspect, reference_set, alpha, progress)
        quiet = made.trigger.p is not None and made.trigger.p > alpha
        strongest, shown = Strongest() if quiet else made.strongest, Shown((), {})
        with Attempt() as showing:  # the answers stand without it
            strongest = with_trigger(strongest, made.seen, suspect, clean)
            shown = show(suspect, clean, strongest, names)
    found = made.alerts(names, shown)
    reasons = [*made.reasons, *made.failed]
    if wrong is not None:
        reasons.insert(0, wrong.reason(names))
    if not any(s.finding is not None or s.failed for s in made.seen if s.view.says == "trigger"):
        reasons.append("no trigger view applies to this model")
    return Outcome(
        subject=subject,
        alerts=tuple(found),
        trigger=made.trigger,
        recipe=made.recipe,
        ledger=made.lines(names),
        source=None if strongest.source is None else names[strongest.source],
        target=None if strongest.target is None else names[strongest.target],
        pictures=shown.pictures,
        sizes=sizes_of(made.pools, names, strongest.target),
        methods=tuple(s.view.name for s in made.seen if s.finding is not None),
        not_covered=(
            *NOT_COVERED[profile],
            *not_searched(made.seen, suspect, made.answers.get("trigger")),
            *([f"the recovered trigger at work ({showing.reason})"] if showing.reason else ()),
        ),
        reasons=tuple(reasons),
        next_steps=next_steps(
            verdict_of(found, reasons), made.advice, None if reference_set is None else len(reference_set), alpha
        ),
        profile=profile,
        alpha=alpha,
        calibration={}
        if reference_set is None
        else reference_set.summary() | _looked(reference_set, suspect, made.seen) | dict(made.told),
        cost={k: float(v) for k, v in cost.values().items() if isinstance(v, float)}
        | {"clean_rows": float(len(clean))},
        seed=seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
        found=strongest,
    )


def _subject(model: Any, notes: Sequence[str]) -> Subject:
    made = model if isinstance(model, Model) else getattr(model, "model", model)
    name = type(getattr(made, "_module", None) or made).__name__
    return Subject("model", name, facts={"notes": list(notes)} if notes else {})


def _claim(subject: Subject | None) -> Claim | None:
    """The accuracy that the suspect's own files state."""
    said = None if subject is None else subject.facts.get("claimed_accuracy")
    return None if said is None else Claim(float(said["accuracy"]), str(said["where"]))


def _unread(
    wrong: Misread,
    names: Sequence[str],
    subject: Subject,
    reference_set: ReferenceSet | None,
    profile: str,
    alpha: float,
    seed: int,
) -> Outcome:
    """A model that does not read the clean rows is not judged: its numbers would say nothing of it."""
    unasked = Answer(None, reason="the model does not read the clean rows")
    if wrong.order:
        subject = replace(subject, facts={**subject.facts, "labels_in_the_model": wrong.labels(names)})
    return Outcome(
        subject,
        trigger=unasked,
        recipe=unasked,
        not_covered=("everything: no view looked at the model",),
        reasons=(wrong.reason(names),),
        next_steps=(_read_rightly(wrong, names, reference_set),),
        profile=profile,
        alpha=alpha,
        calibration={} if reference_set is None else reference_set.summary(),
        seed=seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    )


def _read_rightly(wrong: Misread, names: Sequence[str], reference_set: ReferenceSet | None) -> str:
    """What to type so that the rows are read as the model reads them."""
    if not wrong.order or reference_set is None:
        return wrong.next_step(names)
    return (
        "the references learnt their labels in their own order: train others with the model's, bands refs train --like "
        f"SUSPECT --data CLEAN -o DIR{wrong.next_step(names).removeprefix(AGAIN)}"
    )


def _looked(reference_set: ReferenceSet, suspect: Model, seen: Sequence[Seen]) -> dict[str, Any]:
    """On which device the views looked, and how many rows went through at once: the suspect's, and the references'."""
    views = [s.view for s in seen if s.finding is not None]
    return {
        "device": suspect.device.type,
        "chunk": suspect.chunk,
        "reference_chunks": reference_set.chunks(views, How.of(suspect)),
    }
