"""Computes one cell of a benchmark. A defense is given blind data and the defender's clean split, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data, whole
from torchbands.core.defense import (
    DataFilter,
    FittedDetector,
    InputDetector,
    ModelDetector,
    Repair,
    Training,
    per_row,
    require,
)
from torchbands.core.effect import Effect, share
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.federated import Aggregator
from torchbands.core.goal import Goal
from torchbands.core.method import Method
from torchbands.core.metric import Undefined, Value, to_json
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, seed_of
from torchbands.core.trigger import Trigger
from torchbands.measures.cost import Cost, measured
from torchbands.measures.effectiveness import auroc, clients, decisions, der, histogram, ranking
from torchbands.measures.stealth import measure

#: Test rows of each kind that an input detector is judged on.
JUDGED_ROWS = 1000


@dataclass
class Bench:
    """A victim with what every defense on it is compared to, computed once and shared."""

    victim: Victim
    test: Data
    triggered: Data
    before: Effect
    keep: Callable[[Model], None] | None = None
    _training: Data | None = None
    _blind: Data | None = None

    @classmethod
    def of(cls, victim: Victim) -> Bench:
        return cls(victim, *victim.judged, victim.task.effect(victim.model, victim))

    def effect(self, model: Model) -> Effect:
        """Effect of another model on the victim's rows."""
        return self.victim.task.effect(model, self.victim)

    @cached_property
    def model(self) -> Model:
        """The victim's model as defenses get it: float32. A method may ask for more speed, with a setting `precision`;
        what it really computed in stands in its record."""
        return self.victim.model.at_precision("float32")

    def training(self) -> tuple[Data, Data]:
        """The training data with and without the truth about it. Raises NotApplicable where there is none."""
        if self._training is None or self._blind is None:
            self._training = self.victim.training_data()
            self._blind = self._training.blind()
        return self._training, self._blind


def assess(victim: Victim, control: Victim | None, bench: Bench | None = None) -> dict[str, Any]:
    """Metrics, stealth and samples of a victim. `control` is the never-poisoned victim of the same task and seed."""
    bench = bench or Bench.of(victim)
    metrics: dict[str, Value] = dict(bench.before.values())
    if control is None:
        missing = Undefined("no never-poisoned control was given")
        metrics |= {"control_asr": missing, "lift": missing, "clean_ca": missing}
    else:
        other = bench.effect(control.model)
        asr, base = bench.before.asr, other.asr
        metrics |= {"control_asr": base, "clean_ca": other.ca}
        metrics["lift"] = base if isinstance(base, Undefined) else asr if isinstance(asr, Undefined) else asr - base
    return {
        "metrics": to_json(metrics),
        "stealth": {axis: to_json(values) for axis, values in measure(victim, control).items()},
        "samples": _samples(bench),
    }


def judge(
    victim: Victim,
    defense: Method,
    *,
    seed: int = 0,
    bench: Bench | None = None,
    keep: Callable[[Model], None] | None = None,
) -> dict[str, Any]:
    """Run one defense on one victim: metrics, cost, scores and evidence. Raises NotApplicable when it declines.

    Args:
        bench: what is shared between the defenses of one victim.
        keep: is handed the model that a repair or a robust training made.
    """
    bench = bench or Bench.of(victim)
    bench.keep = keep
    for kind, run in _ROLES.items():
        if isinstance(defense, kind):
            with torch.random.fork_rng(devices=[]), bench.model.shared():
                return run(bench, defense, seed_of("defense", defense.key(), seed))
    raise InputError(f"{defense.name} is a {defense.role}, not a defense that judges or mends a victim")


def _clean(bench: Bench, defense: Method) -> Data:
    """As many of the defender's clean rows as the method asks for, the same number of every class."""
    clean = bench.victim.task.load("clean", bench.victim.seed)
    needed = defense.clean_needed()
    if needed == 0:
        return clean[torch.arange(0)]
    return clean.sample(min(needed, len(clean)), "defender", bench.victim.seed, balanced=True)


def _inputs(bench: Bench, defense: Any, seed: int) -> dict[str, Any]:
    model, clean = bench.model, _clean(bench, defense)
    require(defense, model, clean)
    normal = bench.test.sample(JUDGED_ROWS, "judged", bench.victim.seed)
    asked = bench.triggered.sample(JUDGED_ROWS, "judged-triggered", bench.victim.seed)
    with measured(model) as cost:
        fitted = defense.fit(model, clean, seed=seed)
        low = per_row(fitted.score(normal.x), len(normal), defense.name)
        high = per_row(fitted.score(asked.x), len(asked), defense.name) if len(asked) else torch.zeros(0)
    goal = bench.victim.goal
    obeyed, right = goal.outcomes(model, asked)[0], goal.outcomes(model, normal)[1]
    metrics = ranking(high, low)
    metrics["auroc_obeyed"] = auroc(high[obeyed], low[right])
    if fitted.threshold is not None:
        scores = torch.cat([high, low])
        truth = torch.arange(len(scores)) < len(high)
        metrics |= decisions(scores > fitted.threshold, truth)
        metrics["ca"] = _served(model, fitted, normal, goal, 1, low <= fitted.threshold)
        metrics["asr"] = _served(model, fitted, asked, goal, 0, high <= fitted.threshold)
    return _record(metrics, cost, clean, scores=histogram(high, low)) | {"about": fitted.about}


def _served(model: Model, fitted: FittedDetector, rows: Data, goal: Goal, outcome: int, passed: Tensor) -> Value:
    """How often the model, behind the detector, does what the attacker wants (outcome 0) or what is right (1).

    Inputs are mended where the detector mends; else those that did not pass count neither as right nor as obeying.
    """
    try:
        served = Data(fitted.correct(whole(rows.x)), rows.y)
    except NotApplicable:
        return share(goal.outcomes(model, rows)[outcome] & passed, "rows")
    return share(goal.outcomes(model, served)[outcome], "rows")


def _models(bench: Bench, defense: Any, seed: int) -> dict[str, Any]:
    model, clean = bench.model, _clean(bench, defense)
    require(defense, model, clean)
    with measured(model) as cost:
        finding = defense.inspect(model, clean, seed=seed)
    target = bench.victim.goal.single
    if not bench.victim.attack.backdoor or target is None:
        hit: Value = Undefined("there is no single target class")
    elif finding.target is None:
        hit = Undefined("the method names no target")
    else:
        hit = float(finding.target == target)
    none = Undefined("the paper's rule gives no verdict here")
    metrics: dict[str, Value] = {
        "score": float(finding.score),
        "flagged": none if finding.flagged is None else float(finding.flagged),
        "target_hit": hit,
    }
    record = _record(metrics, cost, clean, evidence=finding.evidence)
    record["target"] = finding.target
    if finding.per_class is not None:
        record["per_class"] = [round(float(v), 4) for v in finding.per_class]
    if finding.trigger is not None:
        record["recovered_html"] = _show(bench, finding.trigger)
        record["true_html"] = _show(bench, bench.victim.trigger)
    return record


def _data(bench: Bench, defense: Any, seed: int) -> dict[str, Any]:
    model, clean = bench.model, _clean(bench, defense)
    require(defense, model, clean)
    truth, blind = bench.training()
    with measured(model) as cost:
        suspicion = defense.score(blind, model, clean=clean if len(clean) else None, seed=seed)
    scores = per_row(suspicion.scores, len(blind), defense.name)
    poisoned = truth.poisoned if truth.poisoned is not None else torch.zeros(len(truth), dtype=torch.bool)
    metrics = ranking(scores[poisoned], scores[~poisoned])
    if suspicion.flagged is not None:
        metrics |= decisions(suspicion.flagged, poisoned)
    return _record(
        metrics, cost, clean, scores=histogram(scores[poisoned], scores[~poisoned]), evidence=suspicion.evidence
    )


def _training(bench: Bench, defense: Any, seed: int) -> dict[str, Any]:
    _, blind = bench.training()
    with measured() as cost:
        model = defense.train(bench.victim.task.recipe, blind, seed=seed)
    cost.forward_passes, cost.dtypes = model.passes.forward, model.passes.dtypes
    return _mended(bench, model, cost, blind[torch.arange(0)])


def _repair(bench: Bench, defense: Any, seed: int) -> dict[str, Any]:
    model, clean = bench.victim.model, _clean(bench, defense)
    require(defense, model, clean)
    with measured(model) as cost:
        mended = defense.repair(model, clean, seed=seed)
    return _mended(bench, mended, cost, clean)


def _aggregation(bench: Bench, defense: Any, seed: int) -> dict[str, Any]:
    """The same attack by the same clients on a federation whose server joins updates by this aggregator."""
    victim = bench.victim
    guarded = victim.task.but(learner=victim.task.learner.guarded_by(defense))
    with measured() as cost:
        other = victim.attack.run(guarded, victim.seed)
    model = other.model
    cost.forward_passes, cost.dtypes = model.passes.forward, model.passes.dtypes
    after = other.task.effect(model, other)
    facts = model.facts.get("clients", {})
    rows = victim.task.load("train", victim.seed)
    bad = set(rows.meta["client"][victim.task.owned(rows)].tolist()) if victim.attack.name != "clean" else set()
    metrics = _compared(bench, after) | clients(facts, bad)
    return _record(metrics, cost, range(guarded.learner.trusted_rows()), evidence={"clients": facts} if facts else {})


def _mended(bench: Bench, model: Model, cost: Cost, clean: Data) -> dict[str, Any]:
    if bench.keep is not None:
        bench.keep(model)
    return _record(_compared(bench, bench.effect(model)), cost, clean)


def _compared(bench: Bench, after: Effect) -> dict[str, Value]:
    """Metrics of a defended model compared with the victim's."""
    before = bench.before
    drop: Value = (
        Undefined("there are no test rows")
        if isinstance(before.ca, Undefined) or isinstance(after.ca, Undefined)
        else before.ca - after.ca
    )
    score = der(before, after) if bench.victim.attack.backdoor else Undefined("there is no backdoor to remove")
    return {**after.values(), "ca_before": before.ca, "asr_before": before.asr, "ca_drop": drop, "der": score}


_ROLES: dict[type[Method], Callable[[Bench, Any, int], dict[str, Any]]] = {
    InputDetector: _inputs,
    ModelDetector: _models,
    DataFilter: _data,
    Training: _training,
    Repair: _repair,
    Aggregator: _aggregation,
}


def _record(
    metrics: Mapping[str, Value],
    cost: Cost,
    clean: Sized,
    *,
    scores: dict[str, list[float]] | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "metrics": to_json(metrics),
        "cost": {**to_json(cost.values()), "clean_samples": len(clean)},
        "precision": cost.precision,
        "scores": scores,
        "evidence": dict(evidence or {}),
    }


def _samples(bench: Bench, count: int = 3) -> list[dict[str, str]]:
    """A few test rows without and with the trigger, and their amplified difference."""
    task, names = bench.victim.task, bench.victim.task.class_names
    picked = bench.test[bench.victim.goal.counts(bench.test)]
    chosen = picked[torch.arange(min(count, len(picked)))]
    after = bench.triggered[torch.arange(len(chosen))]
    said = bench.victim.goal.said(bench.victim.model, after, names) if len(chosen) else []
    out = []
    for i in range(len(chosen)):
        a, b = chosen.x[i : i + 1], after.x[i : i + 1]
        contrast = task.modality.contrast(a, b)
        out.append(
            {
                "original": task.modality.render(a[0]),
                "triggered": task.modality.render(b[0]),
                "difference": "" if contrast is None else task.modality.render(contrast[0]),
                "label": str(names[int(chosen.y[i])]),
                "becomes": said[i],
            }
        )
    return out


def _show(bench: Bench, trigger: Trigger) -> str:
    """A picture of a trigger on one test row."""
    row = bench.triggered.y[:1]
    at = (bench.test.y == row[0]).nonzero().flatten()[:1] if len(row) else torch.arange(1)
    sample = bench.test[at].x
    return bench.victim.task.modality.render(trigger(sample, RowRng(0, torch.arange(1)))[0])
