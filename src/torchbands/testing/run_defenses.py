"""The rules of behaviour for the defense roles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from torchbands.core.defense import (
    Aggregator,
    DataFilter,
    InputDetector,
    ModelDetector,
    Repair,
    RoundContext,
    Training,
    require,
)
from torchbands.testing.judging import Outcome, accuracy, auroc, black_box, defender_rows, finite
from torchbands.testing.run_attacks import check_trigger
from torchbands.testing.subject import demand, same_weights, training_data, untouched, victim
from torchbands.testing.toys import toy

#: Rows of each kind that an input detector scores.
JUDGED = 64
#: Least AUROC, and least clean accuracy of a mended model, on the toy that suits a method best.
USEFUL_AUROC, USEFUL_ACCURACY = 0.6, 0.5


def run_input(made: InputDetector, name: str, twice: bool) -> Outcome:
    planted = victim(name, "badnets")
    clean, test = defender_rows(made, name), toy(name).load("test")
    normal, triggered = test.sample(JUDGED, "n"), planted.triggered(test)[0].sample(JUDGED, "t")
    require(made, planted.model, clean)

    def scores() -> tuple[Tensor, Tensor]:
        fitted = made.fit(planted.model, clean, seed=0)
        low, high = finite(fitted.score(normal.x), len(normal)), finite(fitted.score(triggered.x), len(triggered))
        demand(fitted.threshold is None or isinstance(fitted.threshold, float), "threshold is neither a float nor None")
        return low, high

    with untouched(planted.model, clean, normal, triggered):
        low, high = scores()
        if twice:
            again = scores()
            demand(torch.equal(low, again[0]) and torch.equal(high, again[1]), "the same seed gave other scores")
            black_box(made, planted.model, lambda box: made.fit(box, clean, seed=0).score(normal.x))
    value = auroc(low, high)
    return Outcome(True, useful=value >= USEFUL_AUROC, seen=f"AUROC {value:.2f}")


def run_model(made: ModelDetector, name: str, twice: bool) -> Outcome:
    planted, control = victim(name, "badnets").model, victim(name, "clean").model
    clean = defender_rows(made, name)
    require(made, planted, clean)
    with untouched(planted, control, clean):
        high, low = made.inspect(planted, clean, seed=0), made.inspect(control, clean, seed=0)
        for finding in (high, low):
            finite(torch.tensor([float(finding.score)]), 1)
            if finding.per_class is not None:
                finite(finding.per_class, planted.classes)
            demand(finding.target in (None, *range(planted.classes)), f"target {finding.target} is no class")
        if twice:
            again = made.inspect(planted, clean, seed=0)
            demand((again.score, again.target) == (high.score, high.target), "the same seed gave another finding")
            black_box(made, planted, lambda box: made.inspect(box, clean, seed=0))
    if high.trigger is not None:
        check_trigger(high.trigger, name)
    return Outcome(True, useful=high.score > low.score, seen=f"planted {high.score:.3g}, clean {low.score:.3g}")


def run_filter(made: DataFilter, name: str, twice: bool) -> Outcome:
    rate = float(getattr(made, "contract_rate", 0.2))
    planted, (truth, blind) = victim(name, "badnets", rate), training_data(name, "badnets", rate)
    rows = defender_rows(made, name)
    clean = rows if len(rows) else None
    require(made, planted.model, clean)
    with untouched(planted.model, blind, clean):
        first = made.score(blind, planted.model, clean=clean, seed=0)
        scores = finite(first.scores, len(blind))
        if first.flagged is not None:
            demand(first.flagged.dtype == torch.bool and first.flagged.shape == scores.shape, "flagged is (N,) bool")
        if twice:
            again = made.score(blind, planted.model, clean=clean, seed=0)
            demand(torch.equal(first.scores, again.scores), "the same seed gave other scores")
            black_box(made, planted.model, lambda box: made.score(blind, box, clean=clean, seed=0))
    assert truth.poisoned is not None
    value = auroc(scores[~truth.poisoned], scores[truth.poisoned])
    return Outcome(True, useful=value >= USEFUL_AUROC, seen=f"AUROC {value:.2f}")


def run_training(made: Training, name: str, twice: bool) -> Outcome:
    _, blind = training_data(name, "badnets")
    with untouched(blind):
        first = made.train(toy(name), blind, seed=0)
        value = accuracy(first, name)
        if twice:
            again = made.train(toy(name), blind, seed=0)
            x = toy(name).load("test").x
            demand(torch.equal(first.logits(x), again.logits(x)), "the same seed gave another model")
    return Outcome(True, useful=value >= USEFUL_ACCURACY, seen=f"clean accuracy {value:.2f}")


def run_repair(made: Repair, name: str, twice: bool) -> Outcome:
    planted = victim(name, "badnets").model
    clean = defender_rows(made, name)
    require(made, planted, clean)
    with untouched(planted, clean):
        first = made.repair(planted, clean, seed=0)
        demand(first is not planted, "gave back the model it was given: repair model.clone()")
        value = accuracy(first, name)
        if twice:
            demand(same_weights(first, made.repair(planted, clean, seed=0)), "the same seed gave another model")
            black_box(made, planted, lambda box: made.repair(box, clean, seed=0))
    return Outcome(True, useful=value >= USEFUL_ACCURACY, seen=f"clean accuracy {value:.2f}")


def run_aggregator(made: Aggregator, name: str, twice: bool) -> Outcome:
    one = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    updates = one + 0.1 * torch.randn(9, 40, generator=torch.Generator().manual_seed(1))
    context = RoundContext(0, torch.arange(9), torch.zeros(40))
    kept = updates.clone()
    with untouched():
        step, suspicion = made.aggregate(updates, context)
        again, _ = made.aggregate(updates, context)
        agreed, _ = made.aggregate(one.expand(9, 40).clone(), context)
    finite(step, 40)
    finite(suspicion, 9)
    demand(torch.equal(updates, kept), "changed the updates it was given")
    demand(torch.equal(step, again), "the same updates gave another step")
    near = float(cosine_similarity(step, one[0], dim=0))
    along = float(cosine_similarity(agreed, one[0], dim=0))
    return Outcome(True, useful=near > 0.5 and along > 0.5, seen=f"cosine to what all clients mean {near:.2f}")
