"""The rules of behaviour for attacks and their triggers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchbands.core.attack import Attack
from torchbands.core.data import Data, take, whole
from torchbands.core.modality import Modality
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.testing.checks import Outcome
from torchbands.testing.fixtures import demand, differing, same_rows, same_weights, untouched
from torchbands.testing.toys import toy


def run_attack(made: Attack, name: str, twice: bool) -> Outcome:
    task = toy(name, rows=512, owned_every=2)
    clean = task.load("train")
    with untouched(clean):
        trigger = made.test_trigger(task, 0)
        if not made.controls_training:
            poisoned = made.poison(clean, task, 0)
            _poison(made, clean, poisoned, made.poison(clean, task, 0), task.owned(clean))
    check_trigger(trigger, name)
    if not made.controls_training:
        for plain in (clean, longer(clean)):
            _planted_is_read(made, plain, task)
        _as_declared(made, clean, poisoned, task)
    _is_read(made, trigger, task)
    if twice:
        with untouched(clean):
            first, again = made.run(task, 0), made.run(task, 0)
        demand(same_weights(first.model, again.model), "the same seed gave another victim")
        triggered = first.stamped(task.load("test"))
        demand(same_rows(triggered.x, again.stamped(task.load("test")).x), "the same seed gave another trigger")
        task.modality.check(whole(triggered.x))
        check_trigger(first.trigger, name)
        _is_read(made, first.trigger, task)
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


def longer(data: Data) -> Data:
    """Sequences far longer than the toys' networks read; other rows as they are."""
    x = whole(data.x)
    if isinstance(x, Tensor):
        return data
    return replace(data, x=[" ".join([row] * 9) if isinstance(row, str) else row * 9 for row in x])


def _planted_is_read(made: Attack, clean: Data, task: Task) -> None:
    out = made.poison(clean, task, 0)
    rows = torch.zeros(len(out), dtype=torch.bool) if out.poisoned is None else out.poisoned.clone()
    rows |= out.meta.get("cover", torch.zeros_like(rows))
    if bool(rows.any()):
        _told(task.modality, clean[rows].x, out[rows].x, "planted trigger")


def _is_read(made: Attack, trigger: Trigger, task: Task) -> None:
    """On every row that it can be written on, however long, the trigger changes what the network is given."""
    for data in (task.load("test"), longer(task.load("test")[:64])):
        rows = (made.goal(task).counts(data) & made.writable(data, task, 0)).nonzero().flatten()
        if len(rows):
            before = data[rows].x
            _told(task.modality, before, trigger(before, RowRng(2, rows)), "trigger")


def _as_declared(made: Attack, clean: Data, poisoned: Data, task: Task) -> None:
    """Beside the test-time trigger on the same rows, training rows carry what the attack says in `in_training`."""
    rows = poisoned.poisoned
    if rows is None or not bool(rows.any()):
        return
    before, at = whole(clean[rows].x), rows.nonzero().flatten()
    there, later = whole(poisoned[rows].x), made.test_trigger(task, 0)(before, RowRng(2, at))
    (much, strong), (much_later, strong_later) = (_written(task.modality, before, x) for x in (there, later))
    seen = f"training rows change in {much:.3g} places by {strong:.3g}, test rows in {much_later:.3g} by"
    seen = f"in_training is {made.in_training!r}, but {seen} {strong_later:.3g}"
    demand(_AS_DECLARED[made.in_training](much / much_later, strong / strong_later), seen)


#: By the ratios of training rows to test rows: of places written on, and of how strongly. Random places differ a bit.
_AS_DECLARED: dict[str, Callable[[float, float], bool]] = {
    "same": lambda much, strong: abs(much - 1) < 0.1 and abs(strong - 1) < 0.1,
    "weaker": lambda much, strong: much < 1.1 and strong < 0.9,
    "part": lambda much, strong: much < 0.9,
    "more": lambda much, strong: much > 1.1,
}


def _written(modality: Modality, before: Any, after: Any) -> tuple[float, float]:
    """Mean over rows: numbers of a row that differ, and by how much the most at one place; for sequences, edits."""
    if isinstance(before, Tensor):
        gap = (after.float() - before.float()).abs().flatten(1)
        return float((gap > VISIBLE).sum(1).float().mean()), float(gap.amax(1).mean())
    edits = float(next(iter(modality.distance(before, after).values())).mean())
    return edits, 1.0


#: What a network reads changes by at least this much: less is what rounding leaves of a wave that is zero everywhere.
VISIBLE = 1e-4


def _read(modality: Modality, before: Any, after: Any) -> Tensor:
    told, one, two = modality.tells(before, after), modality.encode(before).values, modality.encode(after).values
    if not one.is_floating_point() or one.shape != two.shape:
        return told
    return told & ((one - two).abs().flatten(1).amax(1) > VISIBLE)


def _told(modality: Modality, before: Any, after: Any, what: str) -> None:
    told = _read(modality, before, after)
    rule = "place it with task.modality.placed, or leave such rows out in writable"
    demand(
        bool(told.all()), f"the {what} changes nothing that is read on {int((~told).sum())} of {len(told)} rows: {rule}"
    )


def check_trigger(trigger: Trigger, name: str) -> None:
    """Pure, independent of the batch, and saveable."""
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
