"""`mend`: repairs are tried from cheap to dear, and the first that holds is kept. Often none does, and that is said."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.defense import Repair
from torchbands.core.errors import Diverged, InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.recipe import Progress
from torchbands.core.registry import build
from torchbands.core.seeding import generator
from torchbands.core.trigger import Trigger
from torchbands.defenses.repair.unlearn import Unlearn

from .in_memory import data_of
from .outcome import Outcome
from .reactivation import Aim, Probe, Reactivation, Trial, limit, search_triggers, shift_trigger

#: Repairs from cheap to dear. The second one that unlearns also looks for what the first one left.
LADDER: tuple[str | Mapping[str, Any], ...] = (
    "channel-lipschitz",
    "unlearn",
    {"name": "unlearn", "search": "target-inversion", "rounds": 4, "epochs": 8, "lr": 0.03},
    {"name": "fst", "epochs": 20, "lr": 0.03},
    "fine-pruning",
    {"name": "ft-sam", "lr": 0.05},
    "i-bau",
    "anp",
)
#: Share of the clean rows that judges and repairs nothing.
JUDGING = 0.3

Judge = Callable[[Model], Outcome]


@dataclass(frozen=True)
class Step:
    """One repair that was tried.

    Attributes:
        repair: its label. spec: how to build it again.
        verdict: accepted, refused (ran, but does not hold), declined (not applicable) or failed (diverged).
        reason: in a sentence.
        accuracy_before, accuracy: on clean rows that repaired nothing, as is everything here.
        trials: every probe before, after and after retuning; the first is the trigger that the scan recovered.
        lost: of the accuracy (an estimate, and a 95 % interval that holds for all repairs of the ladder together, since
            the same rows choose among them).
        p_trigger: of the scan of the repaired model; None where it was not asked or has no references.
        calibrated: whether p_trigger decided. seconds: repairing and judging.
    """

    repair: str
    spec: Mapping[str, Any]
    verdict: Literal["accepted", "refused", "declined", "failed"]
    reason: str
    accuracy_before: float
    accuracy: float | None = None
    lost: tuple[float, float, float] | None = None
    trials: tuple[Trial, ...] = ()
    p_trigger: float | None = None
    calibrated: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class RepairResult:
    """What was tried. `model` and `accepted` (the spec of the repair) are None where no repair held."""

    model: Model | None
    accepted: Mapping[str, Any] | None
    steps: tuple[Step, ...]
    reason: str
    target: int
    source: int | None
    rows: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without the model."""
        plain = asdict(replace(self, model=None))
        del plain["model"]
        return plain


def split(clean: Data, seed: int = 0) -> tuple[Data, Data]:
    """Rows for repairing and rows for judging, class by class, none in both."""
    order = torch.randperm(len(clean), generator=generator("mend rows", seed))
    order = order[clean.y[order].argsort(stable=True)]
    y = clean.y[order]
    start = torch.searchsorted(y, y)
    count = torch.bincount(y)[y]
    judging = torch.arange(len(y)) - start < (JUDGING * count).round()
    if not bool(judging.any()) or bool(judging.all()):
        raise InputError(
            f"a repair needs clean rows to repair with and others to judge with, got {len(clean)} in all",
            hint="give at least a few of every class, better some thousand in all",
        )
    return clean[order[~judging].sort().values].blind(), clean[order[judging].sort().values].blind()


def repair_model(
    model: Model,
    clean: Any,
    judge: Judge,
    *,
    trigger: Trigger | None,
    target: int,
    source: int | None = None,
    references: Sequence[Model] = (),
    max_drop: float = 0.02,
    ladder: Sequence[str | Mapping[str, Any] | Repair] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RepairResult:
    """Try repairs in order and keep the first that holds.

    A repair holds when (1) it loses at most `max_drop` of the accuracy on held-out clean rows; (2) the recovered
    trigger no longer works there, nor do triggers that were searched apart from it and that no repair sees; (3) none of
    them comes back after retuning with a few poisoned samples (`reactivation`); and (4) the scan of the repaired model
    gives p_trigger above its alpha. Where the scan is inconclusive for another reason, or gives no p, the step says
    that it was not calibrated; where retuning did not learn its own samples, that it shows little. The checks are made
    in this order, and the first that fails ends the step.

    The attacker's own trigger is known to none of these checks: they use what a search finds in its place. On
    Fashion-MNIST victims of four attacks, one seed each, thorough unlearning was accepted and brought the true
    trigger's success from .97 or more to .05 or less; retuning with the true trigger woke a third of one of them (SIG).

    Args:
        clean: clean labelled rows in whatever `rows_of` takes; 70 % of every class repair, the others judge.
        judge: scans a model; called for repairs that pass all else.
        trigger: as recovered by a scan of `model`; None searches one.
        target, source: the suspected classes.
        references: models that never had the backdoor, as controls; at most 8 are used.
        max_drop: largest loss of accuracy, as a fraction.
        ladder: repairs as names, specs or methods, in the order of trial; None takes LADDER.

    Raises:
        NotApplicable: the model has no weights, or no trigger to repair against was found.
        InputError: too few clean rows.
    """
    if "weights" not in model.capabilities or "gradients" not in model.capabilities:
        raise NotApplicable("only predictions were given (a black box): there are no weights to repair")
    repairing, judging = split(data_of(clean, model.modality), seed)
    aim = Aim(target, source)
    found = tuple(search_triggers(model, repairing, aim, count=3, seed=seed)) if trigger is None else (trigger,)
    if not found:
        raise NotApplicable(f"no trigger that leads to class {target} was found, so there is none to repair against")
    apart = [("recovered", found[0]), *_apart(model, judging, aim, seed)]
    probes = [Probe.on(name, one, judging, aim, seed) for name, one in apart]
    test = Reactivation(model, probes, aim, repairing, judging, references, seed=seed)
    ladder = LADDER if ladder is None else ladder
    right = _right(model, judging)
    work = _Work(model, repairing, judging, judge, found, aim, test, max_drop, seed, right, len(ladder))
    rows = {"repairing": len(repairing), "judging": len(judging)}
    first = test.trials(model)[0]
    if first.dead:
        raise NotApplicable(
            f"the recovered trigger moves {first.suspect:.0%} of held-out rows to class {target}, no more than a model "
            "without a backdoor allows: there is nothing to repair against"
        )
    steps: list[Step] = []
    for at, rung in enumerate(ladder):
        repair = build(rung, "repair")
        assert isinstance(repair, Repair)
        if progress is not None:
            progress(at, len(ladder), f"trying {repair.name}")
        step, repaired = work.step(repair)
        steps.append(step)
        if repaired is not None:
            return RepairResult(repaired, step.spec, tuple(steps), step.reason, target, source, rows)
    reason = f"none of {len(steps)} repairs held; the last: {steps[-1].reason}" if steps else "no repair was named"
    return RepairResult(None, None, tuple(steps), reason, target, source, rows)


@dataclass(frozen=True)
class _Work:
    model: Model
    repairing: Data
    judging: Data
    judge: Judge
    found: tuple[Trigger, ...]
    aim: Aim
    test: Reactivation
    max_drop: float
    seed: int
    right: Tensor
    rungs: int

    @property
    def accuracy(self) -> float:
        return float(self.right.float().mean())

    def step(self, repair: Repair) -> tuple[Step, Model | None]:
        started = time.perf_counter()
        empty = Step(repair.label(), repair.spec(), "declined", "", round(self.accuracy, 4))
        try:
            repaired = self._repaired(repair)
        except NotApplicable as declined:
            return replace(empty, reason=f"not applicable: {declined.reason}"), None
        except Diverged as error:
            return replace(empty, verdict="failed", reason=error.message), None
        step = self._judged(replace(empty, verdict="refused"), repaired)
        step = replace(step, seconds=round(time.perf_counter() - started, 2))
        return step, repaired if step.verdict == "accepted" else None

    def _repaired(self, repair: Repair) -> Model:
        if not isinstance(repair, Unlearn):
            return repair.repair(self.model, self.repairing, seed=self.seed)
        found = self.found
        if repair.rounds > 1:
            found = (*found, *(t for _, t in _apart(self.model, self.repairing, self.aim, self.seed + 1, 3)))
        return repair.without(
            found, self.model, self.repairing, target=self.aim.target, source=self.aim.source, seed=self.seed
        )

    def _judged(self, step: Step, repaired: Model) -> Step:
        right = _right(repaired, self.judging)
        accuracy = float(right.float().mean())
        step = replace(step, accuracy=round(accuracy, 4), lost=_lost(self.right, right, self.rungs))
        step = replace(step, trials=self.test.trials(repaired))
        if self.accuracy - accuracy > self.max_drop:
            lost = f"loses {self.accuracy - accuracy:.1%} clean accuracy, more than {self.max_drop:.1%}"
            return replace(step, reason=lost)
        alive = max(step.trials, key=lambda t: t.repaired - limit(t.control))
        if not alive.dead:
            said = f"the {alive.probe} trigger still moves {alive.repaired:.0%} of rows (control {alive.control:.0%})"
            return replace(step, reason=said)
        step = replace(step, trials=self.test.retune(repaired, step.trials))
        back = next((t for t in step.trials if t.survived is False), None)
        if back is not None:
            return replace(
                step,
                reason=f"a few poisoned samples bring the {back.probe} trigger back to {back.retuned:.0%} "
                f"({self.test.kind}: {back.retuned_control:.0%})",
            )
        return self._scanned(step, self.judge(repaired))

    def _scanned(self, step: Step, outcome: Outcome) -> Step:
        p = outcome.trigger.p if outcome.trigger is not None else None
        calibrated = p is not None and outcome.verdict != "inconclusive"
        step = replace(step, p_trigger=p, calibrated=calibrated)
        if p is not None and p <= outcome.alpha:
            return replace(step, reason=f"the scan still finds a trigger (p = {p:.3g})")
        found = "the triggers that were tried neither work nor come back"
        weak = next((t for t in step.trials if not t.tested), None)
        if weak is not None:
            found = (
                f"the triggers that were tried neither work nor come back (but of the {weak.probe} trigger that shows "
                f"little: retuning taught the model {weak.learned or 0.0:.0%} of its own samples)"
            )
        if not calibrated or p is None:
            why = "; ".join(outcome.reasons) or "the scan gives no p-value"
            return replace(step, verdict="accepted", reason=f"{found}; not calibrated: {why}")
        return replace(step, verdict="accepted", reason=f"{found}, and the scan finds none (p = {p:.3g})")


def _apart(model: Model, rows: Data, aim: Aim, seed: int, count: int = 1) -> list[tuple[str, Trigger]]:
    """Named triggers that are searched from other starts, and with other rows, than the recovered one."""
    found = [("searched apart", t) for t in search_triggers(model, rows, aim, count=count, seed=seed)]
    with contextlib.suppress(NotApplicable):
        found.append(("shift", shift_trigger(model, rows, aim, seed=seed)))
    return found


def _right(model: Model, rows: Data) -> Tensor:
    return model.logits(rows.x).argmax(1).cpu() == rows.y.cpu()


def _lost(before: Tensor, after: Tensor, repairs: int) -> tuple[float, float, float]:
    """The share of rows lost less those gained, and its interval from pairs (Agresti and Min, 2005: half a row is added
    to each cell of the table), at 1 - 0.05 / repairs."""
    n, half = len(before) + 2.0, 0.5
    lost, gained = float((before & ~after).sum()) + half, float((after & ~before).sum()) + half
    middle = (lost - gained) / n
    z = NormalDist().inv_cdf(1 - 0.025 / max(1, repairs))
    wide = z * math.sqrt(max(0.0, lost + gained - (lost - gained) ** 2 / n)) / n
    estimate = float(before.float().mean() - after.float().mean())
    return round(estimate, 4), round(max(-1.0, middle - wide), 4), round(min(1.0, middle + wide), 4)
