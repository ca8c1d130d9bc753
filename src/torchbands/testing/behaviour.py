"""The rules of behaviour: each role's methods are run on a toy, watched by guards, and their results are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.attack import Attack
from torchbands.core.data import Data, whole
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
from torchbands.core.errors import NotApplicable
from torchbands.core.method import Method
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Network
from torchbands.core.trigger import Trigger
from torchbands.testing.subject import (
    demand,
    differing,
    same_rows,
    same_weights,
    training_data,
    untouched,
    victim,
)
from torchbands.testing.toys import toy

#: Rows of each kind that an input detector scores.
JUDGED = 64
#: Least AUROC, and least clean accuracy of a mended model, on the toy that suits a method best.
USEFUL_AUROC, USEFUL_ACCURACY = 0.6, 0.5


@dataclass(frozen=True)
class Outcome:
    """What a method did on one toy: ran, or declined with a reason.

    Attributes:
        useful: whether it did what its role is for: told planted from clean, or gave a model that works; None where
            the role has no such rule.
        seen: the number behind `useful`.
    """

    ran: bool
    reason: str = ""
    useful: bool | None = None
    seen: str = ""


def exercise(made: Method, name: str, *, twice: bool = True) -> Outcome:
    """Run a method on a toy by the rules of its role.

    Args:
        made: the method. name: a toy's name.
        twice: run again with the same seed and demand the same result.

    Raises:
        ContractError: a rule is broken.
    """
    for kind, run in _ROLES.items():
        if isinstance(made, kind):
            try:
                return run(made, name, twice)
            except NotApplicable as declined:
                demand(bool(declined.reason.strip()), "declined without a reason")
                return Outcome(False, declined.reason)
    return Outcome(False, f"the contract runs no {made.role}")


def defender_rows(made: Method, name: str) -> Data:
    """The clean rows that a defense declared, and no more."""
    clean = toy(name).load("clean").blind()
    needed = made.clean_needed()
    return clean.sample(needed, "contract", balanced=True) if needed else clean[torch.arange(0)]


def auroc(low: Tensor, high: Tensor) -> float:
    """Probability that a score of `high` exceeds one of `low`, ties counting half."""
    gap = high[:, None] - low[None]
    return float((gap > 0).float().mean() + 0.5 * (gap == 0).float().mean())


def _finite(scores: object, n: int) -> Tensor:
    demand(isinstance(scores, Tensor), f"scores are a {type(scores).__name__}, not a tensor")
    assert isinstance(scores, Tensor)
    demand(tuple(scores.shape) == (n,), f"scores have shape {tuple(scores.shape)}, not ({n},)")
    demand(scores.is_floating_point(), f"scores are {scores.dtype}, not floating point")
    demand(bool(torch.isfinite(scores).all()), "scores are not all finite")
    return scores.detach().float().cpu()


def _accuracy(model: Model, name: str) -> float:
    test = toy(name).load("test")
    logits = model.logits(test.x)
    demand(bool(torch.isfinite(logits).all()), "gave a model whose logits are not finite")
    return float((logits.argmax(1) == test.y).float().mean())


def _black_box(made: Method, model: Model, call: Callable[[Model], object]) -> None:
    """A model that only answers must be served or declined."""
    box = Model.black_box(model.probabilities, model.modality, model.classes)
    try:
        call(box)
    except NotApplicable as declined:
        demand(bool(declined.reason.strip()), "declined a black box without a reason")


def _attack(made: Attack, name: str, twice: bool) -> Outcome:
    task = toy(name, rows=512, owned_every=2)
    clean = task.load("train")
    with untouched(clean):
        trigger = made.trigger(task, 0)
        if not made.controls_training:
            poisoned = made.poison(clean, task, 0)
            _poison(made, clean, poisoned, made.poison(clean, task, 0), task.owned(clean))
    _trigger(trigger, name)
    if twice:
        with untouched(clean):
            first, again = made.run(task, 0), made.run(task, 0)
        demand(same_weights(first.model, again.model), "the same seed gave another victim")
        triggered, _ = first.triggered(task.load("test"))
        demand(same_rows(triggered.x, again.triggered(task.load("test"))[0].x), "the same seed gave another trigger")
        task.modality.check(whole(triggered.x))
        _trigger(first.trigger, name)
    return Outcome(True)


def _poison(made: Attack, clean: Data, first: Data, again: Data, owned: Tensor) -> None:
    demand(
        first.poisoned is not None and len(first) == len(clean), "poison() keeps the rows and says which are poisoned"
    )
    assert first.poisoned is not None and again.poisoned is not None
    same = torch.equal(first.poisoned, again.poisoned) and torch.equal(first.y, again.y)
    demand(same and same_rows(first.x, again.x), "the same seed gave other poison")
    written, relabelled = differing(first.x, clean.x), first.y != clean.y
    mine = torch.zeros(len(clean), dtype=torch.bool)
    mine[owned] = True
    cover = first.meta.get("cover", torch.zeros_like(mine))
    demand(not ((written | relabelled | first.poisoned | cover) & ~mine).any(), "touched rows that it does not own")
    demand(not (written & ~(first.poisoned | cover)).any(), "changed rows that it does not call poisoned or cover")
    demand(not (relabelled & ~first.poisoned).any(), "relabelled rows that it does not call poisoned")
    demand(not (made.clean_label and relabelled.any()), "is clean-label and changed labels")
    demand(made.rate == 0 or bool(first.poisoned.any()), f"poisoned no row at rate {made.rate}")


def _trigger(trigger: Trigger, name: str) -> None:
    """Pure, independent of the batch, and saveable."""
    from torchbands.core.data import take
    from torchbands.core.seeding import RowRng

    task = toy(name)
    rows = torch.arange(16)
    batch = task.load("test")[rows]
    with untouched(batch):
        whole_batch = trigger(batch.x, RowRng(1, rows))
        backwards = trigger(take(batch.x, rows.flip(0)), RowRng(1, rows.flip(0)))
        back = build(trigger.spec())
        assert isinstance(back, Trigger)
        again = back.with_tensors(trigger.tensors())(batch.x, RowRng(1, rows))
    task.modality.check(whole_batch)
    near = _close(take(backwards, rows.flip(0)), whole_batch)
    demand(near, "a row's trigger depends on the batch it comes in: draw from `rng` per row")
    demand(_close(again, whole_batch), "the trigger was another after saving: put tensors in `weights`")


def _close(a: Any, b: Any) -> bool:
    return torch.allclose(a, b, atol=1e-5) if isinstance(a, Tensor) else list(a) == list(b)


def _input(made: InputDetector, name: str, twice: bool) -> Outcome:
    planted = victim(name, "badnets")
    clean, test = defender_rows(made, name), toy(name).load("test")
    normal, triggered = test.sample(JUDGED, "n"), planted.triggered(test)[0].sample(JUDGED, "t")
    require(made, planted.model, clean)

    def scores() -> tuple[Tensor, Tensor]:
        fitted = made.fit(planted.model, clean, seed=0)
        low, high = _finite(fitted.score(normal.x), len(normal)), _finite(fitted.score(triggered.x), len(triggered))
        demand(fitted.threshold is None or isinstance(fitted.threshold, float), "threshold is neither a float nor None")
        return low, high

    with untouched(planted.model, clean, normal, triggered):
        low, high = scores()
        if twice:
            again = scores()
            demand(torch.equal(low, again[0]) and torch.equal(high, again[1]), "the same seed gave other scores")
            _black_box(made, planted.model, lambda box: made.fit(box, clean, seed=0).score(normal.x))
    value = auroc(low, high)
    return Outcome(True, useful=value >= USEFUL_AUROC, seen=f"AUROC {value:.2f}")


def _model(made: ModelDetector, name: str, twice: bool) -> Outcome:
    planted, control = victim(name, "badnets").model, victim(name, "clean").model
    clean = defender_rows(made, name)
    require(made, planted, clean)
    with untouched(planted, control, clean):
        high, low = made.inspect(planted, clean, seed=0), made.inspect(control, clean, seed=0)
        for finding in (high, low):
            _finite(torch.tensor([float(finding.score)]), 1)
            if finding.per_class is not None:
                _finite(finding.per_class, planted.classes)
            demand(finding.target in (None, *range(planted.classes)), f"target {finding.target} is no class")
        if twice:
            again = made.inspect(planted, clean, seed=0)
            demand((again.score, again.target) == (high.score, high.target), "the same seed gave another finding")
            _black_box(made, planted, lambda box: made.inspect(box, clean, seed=0))
    if high.trigger is not None:
        _trigger(high.trigger, name)
    return Outcome(True, useful=high.score > low.score, seen=f"planted {high.score:.3g}, clean {low.score:.3g}")


def _filter(made: DataFilter, name: str, twice: bool) -> Outcome:
    planted, (truth, blind) = victim(name, "badnets"), training_data(name, "badnets")
    rows = defender_rows(made, name)
    clean = rows if len(rows) else None
    require(made, planted.model, clean)
    with untouched(planted.model, blind, clean):
        first = made.score(blind, planted.model, clean=clean, seed=0)
        scores = _finite(first.scores, len(blind))
        if first.flagged is not None:
            demand(first.flagged.dtype == torch.bool and first.flagged.shape == scores.shape, "flagged is (N,) bool")
        if twice:
            again = made.score(blind, planted.model, clean=clean, seed=0)
            demand(torch.equal(first.scores, again.scores), "the same seed gave other scores")
            _black_box(made, planted.model, lambda box: made.score(blind, box, clean=clean, seed=0))
    assert truth.poisoned is not None
    value = auroc(scores[~truth.poisoned], scores[truth.poisoned])
    return Outcome(True, useful=value >= USEFUL_AUROC, seen=f"AUROC {value:.2f}")


def _training(made: Training, name: str, twice: bool) -> Outcome:
    _, blind = training_data(name, "badnets")
    with untouched(blind):
        first = made.train(toy(name), blind, seed=0)
        value = _accuracy(first, name)
        if twice:
            again = made.train(toy(name), blind, seed=0)
            x = toy(name).load("test").x
            demand(torch.equal(first.logits(x), again.logits(x)), "the same seed gave another model")
    return Outcome(True, useful=value >= USEFUL_ACCURACY, seen=f"clean accuracy {value:.2f}")


def _repair(made: Repair, name: str, twice: bool) -> Outcome:
    planted = victim(name, "badnets").model
    clean = defender_rows(made, name)
    require(made, planted, clean)
    with untouched(planted, clean):
        first = made.repair(planted, clean, seed=0)
        demand(first is not planted, "gave back the model it was given: repair model.clone()")
        value = _accuracy(first, name)
        if twice:
            demand(same_weights(first, made.repair(planted, clean, seed=0)), "the same seed gave another model")
            _black_box(made, planted, lambda box: made.repair(box, clean, seed=0))
    return Outcome(True, useful=value >= USEFUL_ACCURACY, seen=f"clean accuracy {value:.2f}")


def _aggregator(made: Aggregator, name: str, twice: bool) -> Outcome:
    one = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    updates = one + 0.1 * torch.randn(9, 40, generator=torch.Generator().manual_seed(1))
    context = RoundContext(0, torch.arange(9), torch.zeros(40))
    kept = updates.clone()
    with untouched():
        step, suspicion = made.aggregate(updates, context)
        again, _ = made.aggregate(updates, context)
        agreed, _ = made.aggregate(one.expand(9, 40).clone(), context)
    _finite(step, 40)
    _finite(suspicion, 9)
    demand(torch.equal(updates, kept), "changed the updates it was given")
    demand(torch.equal(step, again), "the same updates gave another step")
    near = float(torch.nn.functional.cosine_similarity(step, one[0], dim=0))
    along = float(torch.nn.functional.cosine_similarity(agreed, one[0], dim=0))
    return Outcome(True, useful=near > 0.5 and along > 0.5, seen=f"cosine to what all clients mean {near:.2f}")


def _network(made: Network, name: str, twice: bool) -> Outcome:
    modality = toy(name).modality
    with torch.random.fork_rng():
        model = Model(made.build(modality, 3), modality, 3)
    logits = model.logits(modality.random(2, torch.Generator().manual_seed(0)))
    demand(tuple(logits.shape) == (2, 3), f"logits have shape {tuple(logits.shape)}, not (2, 3)")
    return Outcome(True)


_ROLES: dict[type[Method], Callable[[Any, str, bool], Outcome]] = {
    Attack: _attack,
    InputDetector: _input,
    ModelDetector: _model,
    DataFilter: _filter,
    Training: _training,
    Repair: _repair,
    Aggregator: _aggregator,
    Network: _network,
}
