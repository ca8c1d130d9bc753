"""The rules of behaviour for the defense roles."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity

from torchbands.core.data import Data
from torchbands.core.defense import (
    DataFilter,
    FittedDetector,
    InputDetector,
    ModelDetector,
    Repair,
    Training,
    require,
)
from torchbands.core.federated import Aggregate, Aggregator, Updates
from torchbands.core.model import Model
from torchbands.learners.vectors import buffers_of, weights_of
from torchbands.testing.checks import (
    USEFUL_AUROC,
    Outcome,
    auroc,
    black_box,
    defender_rows,
    finite,
    half_as_obedient,
)
from torchbands.testing.fixtures import demand, same_weights, training_data, untouched, victim
from torchbands.testing.run_attacks import check_trigger
from torchbands.testing.toys import toy

#: Rows of each kind that an input detector scores.
JUDGED = 64
#: Victims of either kind that a model detector must tell apart, and the share of their pairs that it must order right.
#: A score that means nothing passes with a chance of 1 in 35 on a toy: 2 of the 70 orders have at most 1 pair wrong.
SEEDS, RANKED = 4, 0.9


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
            _row_by_row(made.fit(planted.model, clean, seed=0), Data(triggered.x, triggered.y), high)
            black_box(made, planted.model, lambda box: made.fit(box, clean, seed=0).score(normal.x))
    value = auroc(low, high)
    return Outcome(True, useful=value >= USEFUL_AUROC, seen=f"AUROC {value:.2f}")


def _row_by_row(fitted: FittedDetector, rows: Data, scores: Tensor) -> None:
    """What a row's score is does not hang on the rows it comes with."""
    atol = 1e-4 * float(scores.abs().max())
    cut = len(rows) // 3
    backwards = fitted.score(rows[torch.arange(len(rows)).flip(0)].x).flip(0)
    demand(torch.allclose(backwards, scores, 1e-3, atol), "a row's score depends on the order of rows")
    parts = torch.cat([fitted.score(rows[:cut].x), fitted.score(rows[cut:].x)])
    demand(torch.allclose(parts, scores, 1e-3, atol), "a row's score depends on the batch it comes in")


def rank_models(made: ModelDetector, name: str) -> Outcome:
    """Victims of several seeds, planted and clean, each inspected with clean rows in another order."""
    clean, lost = defender_rows(made, name), 0.0
    scores: tuple[list[float], list[float]] = ([], [])
    for seed in range(SEEDS):
        order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
        for values, attack in zip(scores, ("badnets", "clean"), strict=True):
            values.append(float(made.inspect(victim(name, attack, seed=seed).model, clean[order], seed=seed).score))
        planted, control = (torch.tensor(values) for values in scores)
        lost = len(planted) ** 2 * (1 - auroc(control, planted))
        if lost > SEEDS**2 * (1 - RANKED):
            break  # whatever comes
    seen = ", ".join(f"{p:.3g} against {c:.3g}" for p, c in zip(*scores, strict=True))
    return Outcome(True, useful=lost <= SEEDS**2 * (1 - RANKED), seen=f"planted against clean, by seed: {seen}")


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
            demand(finding.target in (None, *range(planted.classes)), f"target {finding.target} is not a class")
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
            _not_by_place(made, planted.model, blind, clean, scores)
            black_box(made, planted.model, lambda box: made.score(blind, box, clean=clean, seed=0))
    assert truth.poisoned is not None
    value = auroc(scores[~truth.poisoned], scores[truth.poisoned])
    return Outcome(True, useful=value >= USEFUL_AUROC, seen=f"AUROC {value:.2f}")


def _not_by_place(made: DataFilter, model: Model, data: Data, clean: Data | None, scores: Tensor) -> None:
    """Rows in another order are ranked much as before. Filters that train draw other batches then: not the same."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    moved = torch.empty_like(scores)
    moved[order] = finite(made.score(data[order][:], model, clean=clean, seed=0).scores, len(data))
    alike = float(spearmanr(scores, moved)[0])
    rule = "scores depend on the order of rows: their rank correlation with those of shuffled rows is"
    demand(alike >= 0.5 or bool(torch.allclose(scores, moved)), f"{rule} {alike:.2f}")


def run_training(made: Training, name: str, twice: bool) -> Outcome:
    rate = float(getattr(made, "contract_rate", 0.2))
    planted, (_, blind) = victim(name, "badnets", rate), training_data(name, "badnets", rate)
    with untouched(blind):
        first = made.train(toy(name).recipe, blind, seed=0)
        if twice:
            again = made.train(toy(name).recipe, blind, seed=0)
            x = toy(name).load("test").x
            demand(torch.equal(first.logits(x), again.logits(x)), "the same seed gave another model")
    useful, seen = half_as_obedient(first, planted, name)
    return Outcome(True, useful=useful, seen=seen)


def run_repair(made: Repair, name: str, twice: bool) -> Outcome:
    attacked = victim(name, "badnets", float(getattr(made, "contract_rate", 0.2)))
    planted, clean = attacked.model, defender_rows(made, name)
    require(made, planted, clean)
    with untouched(planted, clean):
        first = made.repair(planted, clean, seed=0)
        demand(first is not planted, "gave back the model it was given: repair model.clone()")
        if twice:
            demand(same_weights(first, made.repair(planted, clean, seed=0)), "the same seed gave another model")
            black_box(made, planted, lambda box: made.repair(box, clean, seed=0))
    useful, seen = half_as_obedient(first, attacked, name)
    return Outcome(True, useful=useful, seen=seen)


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
    """A round of honest clients; then one of them, whichever, sends the opposite of its update, twentyfold. Against
    sybils, whom a method may be made for alone, its `contract_sybils` send that same update."""
    (model, honest), clean = _round(name), defender_rows(made, name)
    weights, meant = weights_of(model), honest.weights.mean(0)
    sybils = int(getattr(made, "contract_sybils", 1))

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
        sent.weights[(client + torch.arange(sybils)) % CLIENTS] = -20 * honest.weights[client]
        worst = min(worst, float(cosine_similarity(joined(sent).weights, meant, dim=0)))
    seen = f"cosine to the honest mean {along:.2f}, and {worst:.2f} with one client that sends the opposite"
    return Outcome(True, useful=along > 0.5 and (made.baseline or worst > 0.5), seen=seen)
