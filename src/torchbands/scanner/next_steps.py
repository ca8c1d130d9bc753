"""What a scan of a model did not look for, and what its reader may do now."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torchbands.core.model import Model

from .calibrate import Compared
from .verdict import Verdict
from .views import Seen

_NO_VIEW = (
    "triggers that compute something of the sample (sample-specific)",
    "backdoors in code, in the tokenizer or in pre-processing",
    "attackers who trained against these searches",
)


#: What no view of this profile looks for.
NOT_COVERED = {"fast": ("triggers that work from one source class only", *_NO_VIEW), "full": _NO_VIEW}


#: What the views of samples made of tokens do not look for, beside that.
_TOKENS = "triggers that are a way of writing (syntax, style) or several words that work only together"


_BLACK_BOX = "everything that needs gradients: only predictions were given"


def not_searched(seen: Sequence[Seen], suspect: Model, compared: Compared | None = None) -> tuple[str, ...]:
    """What the profile looks for and could not look for in this model. A pair that was searched and had nothing to be
    compared with was not looked for."""
    if "gradients" not in suspect.capabilities:
        return (_BLACK_BOX,)
    out = [_TOKENS] if suspect.modality.discrete else []
    for s in seen:
        if s.view.says != "trigger":
            continue
        if s.finding is None:
            out.append(f"{s.view.about} ({s.reason})")
        elif s.finding.per_class is not None and s.finding.per_pair is None:
            if left := int((~s.finding.per_class.isfinite()).sum()):
                out.append(f"{left:,} of {suspect.classes:,} classes, which {s.view.name} did not search")
        elif s.finding.per_pair is not None:
            every, known = suspect.classes * (suspect.classes - 1), compared_pairs(s, compared)
            if known < every:
                out.append(f"{every - known:,} of {every:,} pairs of classes, which {s.view.name} did not compare")
    return tuple(out)


def compared_pairs(s: Seen, compared: Compared | None) -> int:
    """How many pairs of classes a view of pairs compared with references; without any, how many it searched."""
    assert s.finding is not None and s.finding.per_pair is not None
    if compared is not None and s.view.name in compared.cells:
        return int(compared.cells[s.view.name].isfinite().sum())
    return 0 if compared is not None else int(s.finding.per_pair.isfinite().sum())


def next_steps(verdict: Verdict, advice: str, references: int | None, alpha: float) -> tuple[str, ...]:
    """What a reader may do now. advice: on what sets the suspect apart from so many references."""
    if references is None:
        return ("train reference models on clean rows: bands scan model SUSPECT --data CLEAN --train-references",)
    steps = [advice] if advice else []
    needed = math.ceil(1 / alpha) - 1
    if references < needed:
        steps.append(f"train at least {needed} references: the command that trained them, with -n {needed} or more")
    if verdict == "indicated":
        steps.append(
            "do not use the model; look at the trigger that was recovered, try to repair it (bands repair SUSPECT "
            "--data CLEAN -o DIR), and look at what it was trained on (bands scan data)"
        )
    elif verdict == "unusual":
        steps.append("compare how the model and its references were trained; if that is known to differ, train others")
    elif verdict == "none":
        steps.append(
            "nothing stands out; what was not covered is listed, and a fast scan can be repeated as a full one"
        )
    return tuple(steps)
