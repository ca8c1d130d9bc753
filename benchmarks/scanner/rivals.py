"""What others say of the same models: the final layer alone, and a classifier that was trained on poisoned models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchbands import zoo as victims
from torchbands.core.defense import Finding
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.defenses.models.final_layer import FinalLayer
from torchbands.scanner.calibrate import p_value
from torchbands.scanner.comparable import outside
from torchbands.scanner.views import View, white_box

from .plan import settings
from .tables import Scores, Suspect, Zoo, auroc_of, judged, scores, share

#: What is said beside what a rule gives here: true and false rates that DFBScanner reports of itself.
CLAIM = {"true": 0.9717, "false": 0.0095}
#: False-alarm level at which the supervised rival is compared.
ALPHA = 0.05


def final_layer(zoo: Zoo, folder: Path) -> dict[str, Any] | None:
    """True and false rates of `final-layer` at its own threshold, and with references. None where it does not apply."""
    detector, nothing, seconds = FinalLayer(), zoo.references.clean[:0], []
    setting = settings()[folder.name]

    def finding(model: Model) -> Finding:
        started = time.process_time()
        found = detector.inspect(model, nothing)
        seconds.append(time.process_time() - started)
        return found

    def reference(member: Path) -> Model:
        task = setting.task
        return zoo.references.model(member, lambda: task.network.build(task.modality, task.classes))

    try:
        theirs = [finding(reference(member)) for member in zoo.references.members()]
        said = {s.id: finding(victims.load(folder / "victims" / s.id).model) for s in zoo.suspects}
    except NotApplicable as declined:
        return {"reason": declined.reason}
    usual = torch.tensor([f.score for f in theirs])
    found: Scores = {i: (f.score, p_value(f.score, usual)) for i, f in said.items()}

    def told(group: Sequence[Suspect]) -> dict[str, Any]:
        hits = [found[s.id][1] <= ALPHA + 1e-12 for s in group]
        return {
            "rule": share([bool(said[s.id].flagged) for s in group]),
            "with references": share(hits),
            "auroc": auroc_of(found, group, zoo.fresh),
        }

    foreign = {s.group for s in zoo.suspects if s.group.startswith("foreign:")}
    groups = {g: zoo.group(lambda x, g=g: x == g) for g in ["fresh", *sorted(foreign), *zoo.families]}
    groups |= {
        "all foreign": zoo.group(lambda g: g in foreign),
        "all backdoored": zoo.group(lambda g: g in zoo.families),
    }
    return {
        "claim": CLAIM,
        "threshold": detector.threshold,
        "groups": {"references": {"rule": share([bool(f.flagged) for f in theirs])}}
        | {g: told(group) for g, group in groups.items() if group},
        "milliseconds": round(1000 * statistics.median(seconds), 2),
    }


@dataclass(frozen=True)
class Learned:
    """A classifier's scores of models that it did not see; `good` are fresh models that nothing was trained on."""

    family: str
    unseen: Sequence[Suspect]
    good: Sequence[Suspect]
    said: Scores


def learned(zoo: Zoo, views: Sequence[View]) -> Iterator[Learned]:
    """Logistic regression on the views' numbers, one for every family, which it never saw.

    Fresh models are split in two: one half trains, the other is the negative class of the test.
    """
    found, names = judged(zoo, views), [v.name for v in views]

    def row(s: Suspect) -> list[float]:
        c = found[s.id]
        return [0.0 if c is None or n not in c.per_view else float(c.per_view[n][-1].nan_to_num(0.0)) for n in names]

    train_good, test_good = zoo.fresh[::2], zoo.fresh[1::2]
    for family in zoo.families:
        seen = zoo.group(lambda g, family=family: g in zoo.families and g != family)
        unseen = zoo.group(lambda g, family=family: g == family)
        if not unseen or not seen or not test_good:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
        model.fit([row(s) for s in (*seen, *train_good)], [1] * len(seen) + [0] * len(train_good))
        others = [*unseen, *test_good, *zoo.group(lambda g: g.startswith("foreign:"))]
        values = model.decision_function([row(s) for s in others])
        yield Learned(family, unseen, test_good, {s.id: (float(v), 0.0) for s, v in zip(others, values, strict=True)})


def meta_classifier(zoo: Zoo, profile: str) -> dict[str, Any]:
    """How well a supervised rival on the same numbers tells a family apart that it never saw."""
    views = [v for v in white_box(profile, tokens=zoo.references.modality.discrete) if v.says != "evidence"]
    return {found.family: auroc_of(found.said, found.unseen, found.good) for found in learned(zoo, views)}


def price(zoo: Zoo, profile: str) -> dict[str, Any]:
    """What it costs to be supervised, and what not to be: power on families that were never seen, and false alarms on
    never-poisoned models of recipes that were never seen.

    The rival's level is set on the fresh models that it was not trained on: its rank among them is at most `ALPHA`.
    """
    every = white_box(profile, tokens=zoo.references.modality.discrete)
    views = {k: [v for v in every if v.says == k] for k in ("trigger", "recipe")}
    recipes = sorted({s.group for s in zoo.suspects if s.group.startswith("foreign:")})
    rows = {
        "supervised, all views": _supervised(zoo, [*views["trigger"], *views["recipe"]], recipes),
        "supervised, trigger views": _supervised(zoo, views["trigger"], recipes),
    }
    p = {k: {i: both[1] for i, both in scores(zoo, found).items()} for k, found in views.items()}
    guard = judged(zoo, [v for v in every if v.guard])
    turned = {i for i, c in guard.items() if c is not None and outside(c, ALPHA)}
    said = {
        "p_trigger": {i for i, v in p["trigger"].items() if v <= ALPHA + 1e-12},
        "p_recipe": {i for i, v in p["recipe"].items() if v <= ALPHA + 1e-12},
    }
    said["the verdict: indicated"] = said["p_trigger"] - turned
    said["the verdict: does not pass"] = said["p_trigger"] | turned
    bad = zoo.group(lambda g: g in zoo.families)
    for name, hits in said.items():
        rows[name] = {
            "power": share([s.id in hits for s in bad]),
            "fresh": share([s.id in hits for s in zoo.fresh]),
            "foreign": {g: share([s.id in hits for s in zoo.group(lambda x, g=g: x == g)]) for g in recipes},
        }
    return rows


def _supervised(zoo: Zoo, views: Sequence[View], recipes: Sequence[str]) -> dict[str, Any]:
    """Power over all families, each judged by the classifier that never saw it; false alarms are means over these
    classifiers, with the lowest and the highest of them."""
    hits: list[bool] = []
    alarms: dict[str, list[float]] = {g: [] for g in recipes}
    good: list[bool] = []
    for found in learned(zoo, views):
        usual = torch.tensor([found.said[s.id][0] for s in found.good])
        # a model of `good` is ranked among the others of it, all others among all of it
        good += [
            p_value(float(v), torch.cat([usual[:at], usual[at + 1 :]])) <= ALPHA + 1e-12 for at, v in enumerate(usual)
        ]
        hits += [p_value(found.said[s.id][0], usual) <= ALPHA + 1e-12 for s in found.unseen]
        for g in recipes:
            mine = [found.said[s.id][0] for s in zoo.suspects if s.group == g]
            alarms[g].append(sum(p_value(v, usual) <= ALPHA + 1e-12 for v in mine) / len(mine))
    return {
        "power": share(hits),
        "fresh": None if not good else {"share": round(sum(good) / len(good), 4)},
        "foreign": {
            g: {"share": round(statistics.mean(a), 4), "low": round(min(a), 4), "high": round(max(a), 4)}
            for g, a in alarms.items()
            if a
        },
    }
