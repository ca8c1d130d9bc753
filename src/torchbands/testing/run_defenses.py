"""The rules of behaviour for the defense roles."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from torchbands.core.defense import (
    DataFilter,
    InputDetector,
    ModelDetector,
    Repair,
    Training,
    require,
)
from torchbands.core.federated import Aggregate, Aggregator, Updates
from torchbands.core.model import Model
from torchbands.learners.vectors import buffers_of, weights_of
from torchbands.testing.checks import Outcome, accuracy, auroc, black_box, defender_rows, finite
from torchbands.testing.fixtures import demand, same_weights, training_data, untouched, victim
from torchbands.testing.run_attacks import check_trigger
from torchbands.testing.toys import toy

#: Rows of each kind that an input detector scores.
JUDGED = 64
#: Least AUROC, and least clean accuracy of a mended model, on the toy that suits a method best.
USEFUL_AUROC, USEFUL_ACCURACY = 0.6, 0.5


def run_input(made: InputDetector, name: str, twice: bool) -> Outcome:
    planted = victim(name, "badnets")
    clean, test = defender_rows(made, name), toy(name).load("test")
    normal, triggered = test.sample(JUDGED, "n"), planted.stamped(test).sample(JUDGED, "t")
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
        first = made.train(toy(name).recipe, blind, seed=0)
        value = accuracy(first, name)
        if twice:
            again = made.train(toy(name).recipe, blind, seed=0)
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


#: Clients of the contract's round.
CLIENTS = 8


@lru_cache(maxsize=8)
def _round(name: str) -> tuple[Model, Updates]:
    """An untrained toy model, and what honest clients send after training it on their parts of the toy's rows."""
    task = toy(name)
    rows, start, sent = task.load("train"), task.fresh(0), []
    weights, buffers = weights_of(start), buffers_of(start)
    for client in range(CLIENTS):
        mine, model = rows[torch.arange(len(rows)) // task.classes % CLIENTS == client], start.clone()
        task.learner.fit(model, mine, seed=client)
        sent.append((weights_of(model) - weights, buffers_of(model) - buffers))
    counts = torch.full((CLIENTS,), len(rows) // CLIENTS)
    changes, running = (torch.stack(part) for part in zip(*sent, strict=True))
    return start, Updates(changes, running, torch.arange(CLIENTS), counts)


def run_aggregator(made: Aggregator, name: str, twice: bool) -> Outcome:
    """A round of honest clients; then one of them, whichever, sends the opposite of its update, twentyfold."""
    (model, honest), clean = _round(name), defender_rows(made, name)
    weights, meant = weights_of(model), honest.weights.mean(0)

    def joined(sent: Updates) -> Aggregate:
        kept = [t.clone() for t in (sent.weights, sent.buffers, weights)]
        with untouched(clean):
            made_server = made.start(model.clone(), clean if len(clean) else None, seed=0)
            out = made_server.step(sent, weights)
        same = all(torch.equal(a, b) for a, b in zip(kept, (sent.weights, sent.buffers, weights), strict=True))
        demand(same, "changed the updates or the weights it was given")
        finite(out.weights, len(weights))
        finite(out.buffers, sent.buffers.shape[1])
        if out.suspicion is not None:
            finite(out.suspicion, len(sent))
        good = out.kept is None or (out.kept.dtype == torch.bool and out.kept.shape == (len(sent),))
        demand(good, "kept is (n,) bool, one for every client")
        return out

    first = joined(honest)
    if twice:
        demand(torch.equal(first.weights, joined(honest).weights), "the same updates gave another step")
    scale = float(meant.abs().max())
    turned = joined(honest.at(torch.arange(CLIENTS).flip(0))).weights
    demand(torch.allclose(first.weights, turned, atol=1e-4 * scale), "the step depends on the order of clients")
    along, worst = float(cosine_similarity(first.weights, meant, dim=0)), 1.0
    for client in range(CLIENTS):
        sent = replace(honest, weights=honest.weights.clone())
        sent.weights[client] *= -20
        worst = min(worst, float(cosine_similarity(joined(sent).weights, meant, dim=0)))
    seen = f"cosine to the honest mean {along:.2f}, and {worst:.2f} with one client that sends the opposite"
    return Outcome(True, useful=along > 0.5 and (made.baseline or worst > 0.5), seen=seen)
