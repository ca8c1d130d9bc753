"""`bands guard check`: a batch of inputs, judged by a guard, as an outcome and as a table of p-values."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence

import torch

from torchbands import __version__
from torchbands.core.data import take
from torchbands.measures.cost import measured

from .guard import Guard, Judged, discoveries
from .outcome import RULES, Alert, LedgerLine, Outcome, Picture, Subject
from .rows import Rows

#: Most suspicious inputs that are shown, and named in the alert.
SHOWN = 12


def judge_inputs(guard: Guard, rows: Rows, class_names: Sequence[str] | None = None) -> tuple[Outcome, Judged]:
    """Judge every row; labels are not read.

    The alert names the inputs that stand after control of the false discovery rate at the guard's alpha (Benjamini and
    Hochberg, 1995): of those, at most a share of alpha is expected to be ordinary. Single inputs below alpha are
    flagged in the table, and among many ordinary inputs there are always some.
    """
    with measured(guard.model) as cost:
        judged = guard(rows.data.x)
    found = discoveries(judged.p, guard.alpha)
    order = judged.score.argsort(descending=True, stable=True)
    worst = [int(i) for i in order[:SHOWN]]
    names = class_names or [str(c) for c in range(guard.model.classes)]
    count, below = int(found.sum()), int(judged.flagged.sum())
    alerts: tuple[Alert, ...] = ()
    if count:
        rule = RULES["BD-INP-01"]
        facts = {"flagged": count, "rows": len(rows), "below_alpha": below, "worst": [rows.ids[i] for i in worst]}
        message = f"{count} of {len(rows)} inputs look triggered to {guard.detector.name}"
        alerts = (Alert(rule.id, rule.level, message, subject=guard.detector.name, facts=facts),)
    line = LedgerLine(
        guard.detector.name,
        "evidence",
        "how far an input is from clean ones",
        score=float(judged.score.max()),
        p=float(judged.p.min()),
        seconds=cost.seconds,
        forward_passes=cost.forward_passes,
        facts={"below_alpha": below, "expected_below_alpha": round(guard.alpha * len(rows), 1)},
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
        "indicated" if count else "none",
        alerts=alerts,
        ledger=(line,),
        pictures=pictures,
        methods=(guard.detector.name,),
        not_covered=("triggers that this detector cannot see", "inputs of another distribution than the clean rows"),
        alpha=guard.alpha,
        calibration={
            "clean_rows": len(guard.calibration),
            "smallest_p": 1 / (len(guard.calibration) + 1),
            "extra_forward_passes_per_input": guard.overhead,
        },
        cost={"seconds": cost.seconds, "forward_passes": float(cost.forward_passes), "rows": float(len(rows))},
        seed=guard.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
    return outcome, judged


def table(rows: Rows, judged: Judged) -> str:
    """CSV of every input in order: id, prediction (-1 where the guard abstains), p, flagged, score."""
    text = io.StringIO()
    made = csv.writer(text, lineterminator="\n")
    made.writerow(["id", "prediction", "p", "flagged", "score"])
    columns = (judged.prediction.tolist(), judged.p.tolist(), judged.flagged.tolist(), judged.score.tolist())
    made.writerows((i, c, f"{p:.6g}", int(f), f"{s:.6g}") for i, c, p, f, s in zip(rows.ids, *columns))
    return text.getvalue()
