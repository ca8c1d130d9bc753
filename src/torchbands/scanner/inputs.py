"""`bands guard check`: a guard's verdict on a batch of inputs, as an outcome and a table of p-values."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence

import torch

from torchbands import __version__
from torchbands.core.data import take
from torchbands.core.words import csv_cell
from torchbands.measures.cost import measured

from .alerts import RULES, Alert
from .attempt import Attempt
from .batch_test import batch_p, clean_to_name_one, fewest, sees_nothing
from .guard import Guard, Judged, discoveries
from .in_memory import samples_of
from .outcome import LedgerLine, Outcome, Picture, Subject
from .rows import Rows

#: Most suspicious inputs that are shown, and named in the alert.
SHOWN = 12
_ABOUT = "how far an input is from clean ones"


def judge_inputs(guard: Guard, rows: Rows, class_names: Sequence[str] | None = None) -> tuple[Outcome, Judged]:
    """Judge every row; labels are not read.

    The batch is tested as a whole at the guard's alpha, against what clean rows would do in it: this is the verdict.
    Its alert names the inputs that stand after control of the false discovery rate at alpha (Benjamini and Hochberg,
    1995): of those, at most a share of alpha is expected to be ordinary. Few clean rows may tell that a batch is not
    ordinary and not which inputs are to blame. Single inputs below alpha are flagged in the table, and among many
    ordinary inputs there are always some.

    Where the detector fails, nothing is concluded, and no row is judged.

    Both take the inputs to be drawn one by one, as the clean rows were: frames of one film are not.
    """
    x = samples_of(rows.data.x, guard.model.modality) if len(rows) else rows.data.x  # other inputs are the user's error
    judged = guard.nothing()
    with measured(guard.model) as cost, Attempt() as tried:
        judged = guard(x)
    if tried.reason:
        return _unjudged(guard, rows, tried.reason), judged
    clean, total = len(guard.calibration), len(rows)
    p, least = batch_p(judged.p, clean), fewest(clean, total, guard.alpha)
    reasons = _blind(guard, judged, total, least)
    seen = not reasons and p <= guard.alpha * (1 + 1e-9)
    found = discoveries(judged.p, guard.alpha) & seen
    order = judged.score.argsort(descending=True, stable=True)
    worst = [int(i) for i in order[:SHOWN]]
    names = class_names or [str(c) for c in range(guard.model.classes)]
    count, below = int(found.sum()), int(judged.flagged.sum())
    alerts: tuple[Alert, ...] = ()
    if seen:
        rule = RULES["BD-INP-01"]
        facts = {
            "named": count,
            "rows": total,
            "p_batch": p,
            "below_alpha": below,
            "worst": [rows.ids[i] for i in worst],
        }
        message = f"{count} of {total} inputs look triggered to {guard.detector.name}"
        if not count:
            message = (
                f"these {total} inputs are not ordinary to {guard.detector.name} (p {p:.2g}), but {clean} clean rows "
                f"are too few to tell which of them: {clean_to_name_one(total, guard.alpha)} could name a single one"
            )
        alerts = (Alert(rule.id, rule.level, message, subject=guard.detector.name, facts=facts),)
    line = LedgerLine(
        guard.detector.name,
        "evidence",
        _ABOUT,
        score=float(judged.score.max()),
        p=float(judged.p.min()),
        seconds=cost.seconds,
        forward_passes=cost.forward_passes,
        facts={"p_batch": p, "below_alpha": below, "expected_below_alpha": round(guard.alpha * total, 1)},
    )
    said = guard.model.logits(take(rows.data.x, torch.tensor(worst))).argmax(1)
    pictures = tuple(
        Picture(
            rows.modality.render(take(rows.data.x, torch.tensor([i]))[0]),
            f"{rows.ids[i]}: predicted {names[int(c)]}, p {float(judged.p[i]):.3g}",
        )
        for i, c in zip(worst, said)
    )
    outcome = Outcome(
        Subject(
            "input", rows.label, rows.sha256(), rows.modality.name, {"rows": len(rows), "refused": len(rows.refused)}
        ),
        alerts=alerts,
        ledger=(line,),
        pictures=pictures,
        methods=(guard.detector.name,),
        not_covered=(
            "triggers that this detector cannot see",
            "inputs of another distribution than the clean rows",
            *(() if least in (None, 1) else (f"fewer than {least} triggered inputs among these {total}",)),
        ),
        reasons=reasons,
        next_steps=_next_steps(seen, count, reasons, clean, total, guard.alpha),
        alpha=guard.alpha,
        calibration={
            "clean_rows": clean,
            "smallest_p": 1 / (clean + 1),
            "p_batch": p,
            "fewest_triggered": least,
            "clean_rows_to_name_one": clean_to_name_one(total, guard.alpha),
            "extra_forward_passes_per_input": guard.overhead,
        },
        cost={"seconds": cost.seconds, "forward_passes": float(cost.forward_passes), "rows": float(len(rows))},
        seed=guard.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
    return outcome, judged


def _unjudged(guard: Guard, rows: Rows, why: str) -> Outcome:
    about = {"rows": len(rows), "refused": len(rows.refused)}
    return Outcome(
        Subject("input", rows.label, rows.sha256(), rows.modality.name, about),
        ledger=(LedgerLine(guard.detector.name, "evidence", _ABOUT, reason=why),),
        not_covered=("everything: no input was judged",),
        reasons=(f"{guard.detector.name} could not judge these inputs ({why})",),
        alpha=guard.alpha,
        seed=guard.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    )


def _blind(guard: Guard, judged: Judged, total: int, least: int | None) -> tuple[str, ...]:
    """Why this guard could not have detected anything in this many inputs."""
    clean = len(guard.calibration)
    if sees_nothing(judged.score, guard.calibration):
        return (f"{guard.detector.name} gives all inputs and all clean rows one score",)
    if least is None:
        return (
            f"{clean} clean rows are too few: {total} inputs, all of them above every clean row, would not be noticed "
            f"at level {guard.alpha:g}",
        )
    return ()


def _next_steps(
    seen: bool, named: int, reasons: Sequence[str], clean: int, total: int, alpha: float
) -> tuple[str, ...]:
    if reasons:
        return ("fit the guard on more clean rows, with --batch N for as many inputs as are checked at once",)
    if named:
        return ("hold these inputs back, look at what they have in common, and scan the model (bands scan model)",)
    if seen:
        return (
            "look at the inputs with the smallest p first; ordinary inputs of another source look like this too: fit a "
            f"guard on clean rows of that source, {clean_to_name_one(total, alpha)} of them could name a single input",
        )
    return (
        "as a batch these inputs are ordinary; of a single one that matters, look at its own p, and mind that fewer "
        "triggered ones than is said below would not be seen",
    )


def table(rows: Rows, judged: Judged) -> str:
    """CSV of every input in order: id, prediction (-1 where the guard abstains), p, flagged, score."""
    text = io.StringIO()
    made = csv.writer(text, lineterminator="\n")
    made.writerow(["id", "prediction", "p", "flagged", "score"])
    columns = (judged.prediction.tolist(), judged.p.tolist(), judged.flagged.tolist(), judged.score.tolist())
    made.writerows((csv_cell(i), c, f"{p:.6g}", int(f), f"{s:.6g}") for i, c, p, f, s in zip(rows.ids, *columns))
    return text.getvalue()
