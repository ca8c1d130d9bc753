"""`torchbands.scan`: every view looks, the references calibrate, two answers come out, and the ledger explains them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchbands import __version__
from torchbands.core.data import Data, take
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger
from torchbands.defenses.models.clean_behaviour import CleanBehaviour
from torchbands.defenses.models.row_certainty import RowCertainty, trained_on
from torchbands.measures.cost import measured

from .alerts import RULES, Alert, Rule
from .behaviour import advice, behaviour, differences
from .calibrate import FEWEST, Compared, Kind, compare
from .highlight import marked
from .in_memory import reading, rows_of
from .in_memory_columns import Numbers
from .left_out import left_out
from .misread import AGAIN, Claim, Misread, misread
from .outcome import Answer, LedgerLine, Outcome, Picture, Subject
from .pairs import NOTHING, ByPair, cheapest
from .pool import pools_of
from .predictor import keeps_modes, predictor
from .references import VIEW_SEED, ReferenceSet
from .rows import Rows
from .same_network import as_references_read, same_network
from .sizes import sizes_of
from .verdict import Verdict, verdict_of
from .view_cache import How
from .views import Seen, look, views_of

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
    suspect, clean, rows = _suspect(model, data, reference_set, mean, std)
    named = None if rows is None or rows.classes != suspect.classes else rows.class_names
    names = _names(named if class_names is None else class_names, reference_set, suspect)
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
        made = _judge(seen, suspect, reference_set, alpha, progress)
        quiet = made.trigger.p is not None and made.trigger.p > alpha
        strongest = Strongest() if quiet else _with_trigger(made, suspect, clean)
        shown = _show(suspect, clean, strongest, names)
    found = made.alerts(names, shown)
    reasons = list(made.reasons)
    if wrong is not None:
        reasons.insert(0, wrong.reason(names))
    if not any(s.finding is not None for s in seen if s.view.says == "trigger"):
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
        not_covered=(*NOT_COVERED[profile], *_not_searched(made.seen, suspect, made.answers.get("trigger"))),
        reasons=tuple(reasons),
        next_steps=_next_steps(verdict_of(found, reasons), made, reference_set, alpha),
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


def _next_steps(verdict: Verdict, made: _Judged, reference_set: ReferenceSet | None, alpha: float) -> tuple[str, ...]:
    """What a reader may do now."""
    if reference_set is None:
        return ("train reference models on clean rows: bands scan model SUSPECT --data CLEAN --train-references",)
    steps = [made.advice] if made.advice else []
    needed = math.ceil(1 / alpha) - 1
    if len(reference_set) < needed:
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


def _looked(reference_set: ReferenceSet, suspect: Model, seen: Sequence[Seen]) -> dict[str, Any]:
    """On which device the views looked, and how many rows went through at once: the suspect's, and the references'."""
    views = [s.view for s in seen if s.finding is not None]
    return {
        "device": suspect.device.type,
        "chunk": suspect.chunk,
        "reference_chunks": reference_set.chunks(views, How.of(suspect)),
    }


def _not_searched(seen: Sequence[Seen], suspect: Model, compared: Compared | None = None) -> tuple[str, ...]:
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
            every, known = suspect.classes * (suspect.classes - 1), _compared_pairs(s, compared)
            if known < every:
                out.append(f"{every - known:,} of {every:,} pairs of classes, which {s.view.name} did not compare")
    return tuple(out)


def _compared_pairs(s: Seen, compared: Compared | None) -> int:
    """How many pairs of classes a view of pairs compared with references; without any, how many it searched."""
    assert s.finding is not None and s.finding.per_pair is not None
    if compared is not None and s.view.name in compared.cells:
        return int(compared.cells[s.view.name].isfinite().sum())
    return 0 if compared is not None else int(s.finding.per_pair.isfinite().sum())


@dataclass(frozen=True)
class Strongest:
    """The trigger view that stands out most: its classes and its trigger, where it recovers one."""

    target: int | None = None
    source: int | None = None
    trigger: Trigger | None = None


@dataclass(frozen=True)
class _Judged:
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

    def alerts(self, names: Sequence[str], shown: _Shown) -> list[Alert]:
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
        at = _cell(s, compared)
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
        told["compared"] = _compared_pairs(s, compared)
    return told


def _alert(rule: Rule, message: str, subject: str, facts: Mapping[str, Any]) -> Alert:
    return Alert(rule.id, rule.level, message, subject, facts)


def _judge(
    seen: tuple[Seen, ...], suspect: Model, reference_set: ReferenceSet | None, alpha: float, progress: Progress | None
) -> _Judged:
    nothing = "there are no reference models, so nothing is calibrated"
    if reference_set is None:
        none = Answer(None, reason=nothing)
        return _Judged(seen, none, none, _strongest(seen, None), (nothing,), {}, alpha)
    seen, pools = pools_of(reference_set, suspect, seen, progress)
    same = _same_architecture(reference_set, suspect)
    answers = {
        says: _compare([s for s in seen if s.view.says == says and (same or says == "trigger")], pools)
        for says in ("trigger", "recipe", "evidence")
    }
    guard = _compare([s for s in seen if s.view.guard], pools)
    recipes, behaves = reference_set.recipes(), dict[str, tuple[float, float, float]]()
    if CleanBehaviour.name in pools:
        behaves = behaviour(pools[CleanBehaviour.name])
    reasons = [] if same else ["the reference models have another architecture"]
    reasons += _unasked(seen, pools, suspect, answers["trigger"], len(reference_set), alpha)
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
    n = len(reference_set)
    told: dict[str, Any] = {"behaviour": {k: [round(v, 4) for v in r] for k, r in behaves.items()}} if behaves else {}
    trigger_pools, guard_pools = (_with_kinds(seen, pools, what) for what in ("trigger", "guard"))
    if unseen := left_out(trigger_pools, guard_pools, recipes, alpha, outside):
        told["left_out_recipes"] = unseen
    return _Judged(
        seen,
        _answer(answers["trigger"], n, "no trigger view could be compared"),
        _answer(answers["recipe"], n, "no recipe view could be compared"),
        _strongest(seen, answers["trigger"]),
        tuple(reasons),
        answers,
        alpha,
        advice(behaves) if guard is not None and outside(guard, alpha) and behaves else "",
        told,
        pools,
    )


def _with_kinds(seen: Sequence[Seen], pools: Mapping[str, Tensor], what: str) -> dict[str, tuple[Tensor, Kind]]:
    mine = [s for s in seen if s.finding is not None and s.view.name in pools]
    return {
        s.view.name: (pools[s.view.name], s.view.kind)
        for s in mine
        if (s.view.guard if what == "guard" else s.view.says == what)
    }


def _unasked(
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
    lacking = [s.view.name for s in looked if s.view.name in pools and _lacks(s, pools[s.view.name], suspect)]
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


def _lacks(s: Seen, pool: Tensor, suspect: Model) -> bool:
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


def _answer(compared: Compared | None, n: int, reason: str) -> Answer:
    if compared is None:
        return Answer(None, references=n, reason=reason)
    return Answer(compared.p, float(compared.combined[-1]), compared.references)


def _compare(seen: Sequence[Seen], pools: Mapping[str, Tensor]) -> Compared | None:
    mine = [s for s in seen if s.finding is not None and s.view.name in pools]
    return compare({s.view.name: pools[s.view.name] for s in mine}, {s.view.name: s.view.kind for s in mine})


def _same_architecture(reference_set: ReferenceSet, suspect: Model) -> bool:
    theirs = reference_set.shapes()
    if not theirs:
        return False
    return "weights" not in suspect.capabilities or same_network(suspect.module, theirs)


def _cell(s: Seen, compared: Compared | None) -> Strongest:
    """Which class or pair stands out, against the references where there are any."""
    finding = s.finding
    if finding is None:
        return Strongest()
    cells = None if compared is None else compared.cells.get(s.view.name)
    if finding.per_trigger is not None and finding.insertion is not None and cells is not None:
        return _standing_out(finding.per_trigger, finding.insertion, cells)
    per = finding.per_pair if finding.per_pair is not None else finding.per_class
    if cells is None or per is None or cells.numel() != per.numel() or s.view.says != "trigger":
        return Strongest(finding.target, finding.source, finding.trigger)
    at = int(cells.nan_to_num(-torch.inf).argmax())
    if finding.per_pair is None:
        return Strongest(at, None, finding.trigger if finding.target == at else None)
    source, target = divmod(at, per.shape[1])
    # several sources that lead to one target: the trigger works from everywhere
    high = cells.view_as(per)[:, target]
    many = int((high > 0.5 * cells[at]).sum()) > max(1, int(high.isfinite().sum()) // 2)
    found = finding.target == target and (many or finding.source == source)
    return Strongest(target, None if many else source, finding.trigger if found else None)


def _with_trigger(made: _Judged, suspect: Model, clean: Data) -> Strongest:
    """What stands out most; the trigger of a pair is searched again where it is not the one that its view kept."""
    at = made.strongest
    if at.trigger is not None or at.source is None or at.target is None:
        return at
    for s in made.seen:
        if s.finding is not None and isinstance(s.view.detector, ByPair):
            rows = s.view.rows(clean, VIEW_SEED)
            found = s.view.detector.trigger_of(suspect, rows, at.source, at.target, seed=VIEW_SEED)
            return replace(at, trigger=found)
    return at


#: Small triggers that are shown together, at most, and how near to the strongest they stand.
TOGETHER, NEAR = 3, 0.5


def _standing_out(per: Tensor, insertion: Callable[[Sequence[int]], Trigger], cells: Tensor) -> Strongest:
    """The class, and the few triggers that stand out together, the strongest first."""
    z = cells.nan_to_num(-torch.inf).view_as(per)
    target = int(z.amax(0).argmax())
    near, at = z[:, target].topk(min(TOGETHER, len(z)))
    return Strongest(target, None, insertion(at[near > NEAR * near[0]].tolist()))


def _strongest(seen: Sequence[Seen], compared: Compared | None) -> Strongest:
    views = [s for s in seen if s.view.says == "trigger" and s.finding is not None]
    if not views:
        return Strongest()
    if compared is None:
        return _cell(views[0], None)
    known = [s for s in views if s.view.name in compared.per_view]
    if not known:
        return _cell(views[0], None)
    found = [_cell(s, compared) for s in sorted(known, key=lambda s: -float(compared.per_view[s.view.name][-1]))]
    top = found[0]
    trigger = next((f.trigger for f in found if f.target == top.target and f.trigger is not None), None)
    return Strongest(top.target, top.source, trigger)


@dataclass(frozen=True)
class _Shown:
    pictures: tuple[Picture, ...]
    facts: Mapping[str, Any]


def _show(model: Model, clean: Data, found: Strongest, names: Sequence[str]) -> _Shown:
    """The recovered trigger on clean rows, and how many of them it moves to the target."""
    if found.trigger is None or found.target is None:
        return _Shown((), {})
    rows = (clean.y == found.source if found.source is not None else clean.y != found.target).nonzero().flatten()
    if len(rows) == 0:
        return _Shown((), {})
    rows = rows[:: max(1, len(rows) // 200)][:200]
    before = take(clean.x, rows)
    after = found.trigger(before, RowRng(0, rows))
    already = model.logits(before).argmax(1) == found.target
    was = float(already.float().mean())
    said = model.logits(after).argmax(1)
    success = float((said == found.target).float().mean())
    moved = (
        ((said == found.target) & ~already).nonzero().flatten()
    )  # a picture of the trigger at work, where it works on any
    at = int(moved[0]) if len(moved) else 0
    first, words = int(clean.y[rows[at]]), tuple(map(str, getattr(found.trigger, "words", ())))
    contrast = model.modality.contrast(before[at : at + 1], after[at : at + 1])
    pictures = [
        Picture(model.modality.render(before[at]), f"a clean row of class {names[first]}"),
        Picture(
            marked(model.modality.render(after[at]), words),
            f"with the recovered trigger: read as {names[int(said[at])]}",
        ),
    ]
    if contrast is not None:
        pictures.append(Picture(model.modality.render(contrast[0]), "the difference, stretched"))
    facts: dict[str, Any] = {"trigger_success": round(success, 4), "without_trigger": round(was, 4), "rows": len(rows)}
    if words:
        facts["words"] = " ".join(words)
    return _Shown(tuple(pictures), facts)


def _suspect(
    model: Any, data: Any, reference_set: ReferenceSet | None, mean: Numbers | None, std: Numbers | None
) -> tuple[Model, Data, Rows | None]:
    """The suspect, the samples to look with, and the rows that they are where no references bring them."""
    if reference_set is None and data is None:
        raise InputError(
            "a scan needs clean labelled rows or reference models",
            hint="scan(model, (x, y)) or scan(model, refs='refs/'); at the command line: --data or --refs",
        )
    made = model if isinstance(model, Model) else getattr(model, "model", None)
    if isinstance(made, Model):
        if reference_set is not None and made.classes != reference_set.classes:
            raise InputError(f"the model has {made.classes} classes, the references have {reference_set.classes}")
        rows = None if reference_set is not None else rows_of(data, modality=made.modality, mean=mean, std=std)
        clean = reference_set.clean if rows is None else data if isinstance(data, Data) else rows.data  # type: ignore[union-attr]
        made = _answering(made, clean)
        if reference_set is not None:
            return as_references_read(made, reference_set), clean, None
        return made, clean, rows
    if not isinstance(model, nn.Module):
        raise InputError(f"a suspect is an nn.Module or a Model, got {type(model).__name__}")
    if reference_set is not None:
        module = reading(model, reference_set.modality, mean, std)
        made = predictor(module, reference_set.clean, reference_set.modality, reference_set.classes)
        return as_references_read(_answering(made, reference_set.clean), reference_set), reference_set.clean, None
    rows = rows_of(data, mean=mean, std=std)
    if rows.modality.discrete:
        raise InputError(
            f"how a network takes {rows.modality.name} cannot be told from the rows",
            hint="wrap the network: Model.wrap(module, modality, classes)",
        )
    made = predictor(reading(model, rows.modality, mean, std), rows.data, rows.modality)
    return _answering(made, rows.data), rows.data, rows


def _answering(model: Model, clean: Data) -> Model:
    """The model, if it gives as many answers as it has classes."""
    said = model.logits(take(clean.x, torch.arange(1))).shape[-1]
    if (highest := int(clean.y.max())) >= model.classes:
        raise InputError(
            f"the rows have labels up to {highest}, the model has classes 0 to {model.classes - 1}",
            hint="number the labels as the model's classes, or give the rows that it was trained for",
        )
    if said != model.classes:
        raise InputError(
            f"the model gives {said} answers for each sample, expected {model.classes}, one for each class"
        )
    return model


def _names(given: Sequence[str] | None, reference_set: ReferenceSet | None, model: Model) -> list[str]:
    if given and len(given) != model.classes:
        raise InputError(f"{len(given)} class names were given for {model.classes} classes")
    names = list(given or (reference_set.class_names if reference_set is not None else ()))
    return names if len(names) == model.classes else [str(k) for k in range(model.classes)]
