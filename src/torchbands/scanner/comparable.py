"""Whether the suspect can be compared with the references at all, and if not, why: what was not asked is no pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from torchbands.core.model import Model

from .calibrate import FEWEST, Compared
from .pairs import NOTHING, ByPair, cheapest
from .references import ReferenceSet
from .same_network import same_network
from .views import Seen


def unasked(
    seen: Sequence[Seen],
    pools: Mapping[str, Tensor],
    suspect: Model,
    compared: Compared | None,
    references: int,
    alpha: float,
) -> list[str]:
    """Why p_trigger, or a part of it, could not be asked. What was not asked is no pass."""
    looked = [s for s in seen if s.view.says == "trigger"]
    ranked = references if compared is None else compared.references
    needed, reasons = math.ceil(1 / alpha) - 1, []
    if ranked < needed:
        told = f"{ranked} reference models"
        if ranked < references:
            told = f"{ranked} of {references} reference models, those that every view could look at,"
        reasons.append(f"{told} cannot give p <= {alpha:g}: at least {needed} are needed")
    if compared is None and any(s.finding is not None for s in looked):
        reasons.append("no trigger view could be compared with the reference models")
    asked = [s for s in looked if s.view.name in pools and not s.failed]
    lacking = [s.view.name for s in asked if lacks(s, pools[s.view.name], suspect)]
    if lacking and compared is not None:
        reasons.append(f"{', '.join(lacking)} gave no finite number where every reference model has one")
    alone = [s.view.name for s in looked if s.finding is not None and s.view.name not in pools]
    if alone and compared is not None:
        reasons.append(
            f"{', '.join(alone)} could not be compared: the reference models were not looked at so, on this kind of "
            "device, and cannot be rebuilt"
        )
    if any(_put_forward_alone(s, pools[s.view.name]) for s in looked if s.view.name in pools):
        reasons.append("the pairs of classes that stand out in the suspect could not be searched in the references")
    return reasons


def lacks(s: Seen, pool: Tensor, suspect: Model) -> bool:
    """Whether a view has fewer finite numbers of the suspect than of any reference. A view that needs what a black box
    does not give declines openly, and lacks nothing."""
    if s.finding is None:
        return "gradients" in suspect.capabilities
    there = pool.flatten(1).isfinite()
    theirs, mine = there[:-1][there[:-1].any(1)], there[-1]
    if len(theirs) == 0:
        return False
    if s.finding.per_pair is None or not isinstance(s.view.detector, ByPair):
        return int(mine.sum()) < int(theirs.sum(1).min())
    # models choose different pairs, as many as each other: what another model chose and this one did not is no lack
    searched = s.finding.evidence.get("searched", 0)
    failed = mine & False if s.asked is None else (s.asked == NOTHING).flatten()
    return int(s.finding.per_pair.isfinite().sum()) < searched or bool((theirs.all(0) & failed).any())


def _put_forward_alone(s: Seen, pool: Tensor) -> bool:
    """Whether pairs that the suspect puts forward have too few references to be compared with."""
    if s.finding is None or s.finding.per_pair is None or not isinstance(s.view.detector, ByPair):
        return False
    return bool((pool[:-1].isfinite().sum(0) < FEWEST)[cheapest(s.finding.per_pair.float().cpu())].any())


def outside(guard: Compared, alpha: float) -> bool:
    """Whether a model behaves unlike the references: p at most alpha, and farther than every reference by a margin,
    so that not one model in n + 1 of the recipe is turned away."""
    numbers = next(iter(guard.per_view.values()))
    farthest = max(1.0, float(numbers[:-1].nan_to_num(0.0).max()))
    return guard.p <= alpha and float(numbers[-1]) > 2 * farthest


def same_architecture(reference_set: ReferenceSet, suspect: Model) -> bool:
    theirs = reference_set.shapes()
    if not theirs:
        return False
    return "weights" not in suspect.capabilities or same_network(suspect.module, theirs)
