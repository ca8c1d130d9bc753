"""From what the views saw to two calibrated answers, with the reasons why one could not be given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.defenses.models.clean_behaviour import CleanBehaviour
from torchbands.defenses.models.row_certainty import RowCertainty, trained_on

from .alerts import RULES, Alert, Rule
from .attempt import Failures
from .behaviour import advice, behaviour, differences
from .calibrate import Compared, Kind, compare
from .comparable import outside, same_architecture, unasked
from .left_out import left_out
from .next_steps import compared_pairs
from .outcome import Answer, LedgerLine
from .pool import pools_of
from .references import ReferenceSet
from .shown_trigger import Shown
from .strongest import Strongest, standing_out_in, strongest
from .views import Seen


@dataclass(frozen=True)
class Evidence:
    """What the views saw, calibrated.

    Attributes:
        reasons: why the trigger's p, whatever it is, says nothing. failed: what else could not be looked at.
        answers: by what a view may say, how the suspect compares with the references; None where no view could be.
        pools: view -> the numbers behind it. told: what else of the references a report shows.
    """

    seen: tuple[Seen, ...]
    trigger: Answer
    recipe: Answer
    strongest: Strongest
    reasons: tuple[str, ...]
    answers: Mapping[str, Compared | None]
    alpha: float
    advice: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    pools: Mapping[str, Tensor] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    def alerts(self, names: Sequence[str], shown: Shown) -> list[Alert]:
        out = []
        if self.trigger.p is not None and self.trigger.p <= self.alpha and not self.reasons:
            at = self.strongest
            where = f"class {names[at.target]!r}" if at.target is not None else "a class"
            if at.source is not None:
                where += f" from class {names[at.source]!r}"
            by = f", by inserting {words!r}," if (words := shown.facts.get("words")) else ""
            message = f"{where} is reached far more cheaply{by} than in reference models ({self._strength()})"
            out.append(_alert(RULES["BD-TRG-01"], message, where, {"p": self.trigger.p, **shown.facts}))
        if self.recipe.p is not None and self.recipe.p <= self.alpha:
            message = f"parameters or behaviour differ from the reference models (p = {self.recipe.p:.3g})"
            out.append(_alert(RULES["BD-RCP-01"], message, "model", {"p": self.recipe.p}))
        return out

    def _strength(self) -> str:
        """p and, as it cannot fall below its floor, how far the strongest view stands out."""
        assert self.trigger.p is not None
        told = f"p = {self.trigger.p:.3g}"
        if self.trigger.p <= self.trigger.smallest:
            told += f", the least that {self.trigger.references} references can give"
        compared = self.answers.get("trigger")
        z = [float(v[-1]) for v in compared.per_view.values()] if compared is not None else []
        known = [value for value in z if math.isfinite(value)]
        return f"{told}; z = {max(known):.1f}" if known else told

    def lines(self, names: Sequence[str]) -> tuple[LedgerLine, ...]:
        return tuple(self._line(s, names) for s in self.seen)

    def _line(self, s: Seen, names: Sequence[str]) -> LedgerLine:
        compared = self.answers.get(s.view.says)
        known = compared is not None and s.view.name in compared.per_view
        assert compared is not None or not known
        at = standing_out_in(s, compared)
        return LedgerLine(
            view=s.view.name,
            answer=s.view.says,
            about=s.view.about,
            score=None if s.finding is None else round(float(s.finding.score), 4),
            z=round(float(compared.per_view[s.view.name][-1]), 3) if compared is not None and known else None,
            p=compared.p_views[s.view.name] if compared is not None and known else None,
            target=None if at.target is None else names[at.target],
            source=None if at.source is None else names[at.source],
            reason=s.reason or ("" if known else "no references to compare it with, or too few"),
            seconds=round(s.seconds, 3),
            forward_passes=s.passes,
            facts=_facts(s, compared),
        )


def _facts(s: Seen, compared: Compared | None) -> dict[str, Any]:
    if s.finding is None:
        return {}
    told = dict(s.finding.evidence)
    if s.finding.per_pair is not None and compared is not None:
        told["compared"] = compared_pairs(s, compared)
    return told


def _alert(rule: Rule, message: str, subject: str, facts: Mapping[str, Any]) -> Alert:
    return Alert(rule.id, rule.level, message, subject, facts)


def gather(
    seen: tuple[Seen, ...], suspect: Model, reference_set: ReferenceSet | None, alpha: float, progress: Progress | None
) -> Evidence:
    """Calibrate what was seen of the suspect by the references, where there are any."""
    nothing = "there are no reference models, so nothing is calibrated"
    if reference_set is None:
        none = Answer(None, reason=nothing)
        grave, other = _failed(seen, Failures())
        return Evidence(seen, none, none, strongest(seen, None), (nothing, *grave), {}, alpha, failed=other)
    seen, pools, failures = pools_of(reference_set, suspect, seen, progress)
    same = same_architecture(reference_set, suspect)
    answers = {
        says: compared_by([s for s in seen if s.view.says == says and (same or says == "trigger")], pools)
        for says in ("trigger", "recipe", "evidence")
    }
    guard = compared_by([s for s in seen if s.view.guard], pools)
    recipes, behaves = reference_set.recipes(), dict[str, tuple[float, float, float]]()
    if CleanBehaviour.name in pools:
        behaves = behaviour(pools[CleanBehaviour.name])
    reasons = [] if same else ["the reference models have another architecture"]
    reasons += unasked(seen, pools, suspect, answers["trigger"], len(reference_set), alpha)
    if guard is None:
        reasons.append("whether the suspect behaves like the reference models on clean rows could not be told")
    elif outside(guard, alpha) and RowCertainty.name in pools and trained_on(pools[RowCertainty.name]):
        reasons.append(
            "the suspect reads the rows that the reference models hold out as only a model does that was trained on "
            "them (or a far better one), so its numbers cannot be compared with theirs: train references (bands refs "
            "train --data) on clean rows that the suspect has not seen"
        )
    elif outside(guard, alpha):
        reasons.append(
            "the suspect behaves unlike the reference models on clean rows: "
            f"{differences(behaves) or 'its numbers differ'}; it was trained by another recipe, so its trigger costs "
            "cannot be compared with theirs"
        )
    grave, other = _failed(seen, failures)
    n = len(reference_set)
    told: dict[str, Any] = {"behaviour": {k: [round(v, 4) for v in r] for k, r in behaves.items()}} if behaves else {}
    trigger_pools, guard_pools = (_with_kinds(seen, pools, what) for what in ("trigger", "guard"))
    if unseen := left_out(trigger_pools, guard_pools, recipes, alpha, outside):
        told["left_out_recipes"] = unseen
    return Evidence(
        seen,
        _answer(answers["trigger"], n, "no trigger view could be compared"),
        _answer(answers["recipe"], n, "no recipe view could be compared"),
        strongest(seen, answers["trigger"]),
        (*reasons, *grave),
        answers,
        alpha,
        advice(behaves) if guard is not None and outside(guard, alpha) and behaves else "",
        told,
        pools,
        other,
    )


def _failed(seen: Sequence[Seen], failures: Failures) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What failed of the views that the trigger's p rests on, and of the others: none of these may hide a trigger."""
    grave, other = list[str](), list[str]()
    for s in seen:
        mine = f"{s.view.name} failed on the suspect ({s.reason})" if s.failed else ""
        into = grave if s.view.says == "trigger" or s.view.guard else other
        into += [told for told in (mine, failures.said(s.view.name)) if told]
    return tuple(grave), tuple(other)


def _with_kinds(seen: Sequence[Seen], pools: Mapping[str, Tensor], what: str) -> dict[str, tuple[Tensor, Kind]]:
    mine = [s for s in seen if s.finding is not None and s.view.name in pools]
    return {
        s.view.name: (pools[s.view.name], s.view.kind)
        for s in mine
        if (s.view.guard if what == "guard" else s.view.says == what)
    }


def _answer(compared: Compared | None, n: int, reason: str) -> Answer:
    if compared is None:
        return Answer(None, references=n, reason=reason)
    return Answer(compared.p, float(compared.combined[-1]), compared.references)


def compared_by(seen: Sequence[Seen], pools: Mapping[str, Tensor]) -> Compared | None:
    mine = [s for s in seen if s.finding is not None and s.view.name in pools]
    return compare({s.view.name: pools[s.view.name] for s in mine}, {s.view.name: s.view.kind for s in mine})
