"""A3FL: the patch follows the global model, and is tried on one that has unlearned it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torchbands.attacks.a3fl import A3FL, Adapting, Stamping
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.testing import toy


def adapted(model: Model, **settings: Any) -> tuple[Adapting, float]:
    """The hook after one adaptation, and how often its patch reaches the target on that model."""
    task = toy("image")
    (hook,) = A3FL(**settings).hooks(task, 0)
    assert isinstance(hook, Adapting)
    rows = task.load("train")
    hook.adapt(model, rows, torch.Generator().manual_seed(0))
    other = rows.x[rows.y != 0]
    return hook, float((model.logits(hook.stamp(other)).argmax(1) == 0).float().mean())


def test_the_patch_is_adapted_to_the_model_that_it_is_given_and_leaves_it_as_it_was() -> None:
    task = toy("image")
    model = build("clean").run(task, 0).model  # type: ignore[attr-defined]
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    _, start = adapted(model, steps=1, step=1e-6)
    hook, reached = adapted(model, steps=60, step=0.05)
    assert reached > start + 0.15, (start, reached)
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert float(hook.pattern.min()) >= 0 and float(hook.pattern.max()) <= 1
    other, _ = adapted(build("clean").run(task, 5).model, steps=60, step=0.05)  # type: ignore[attr-defined]
    assert not torch.equal(hook.pattern * hook.mask, other.pattern * other.mask), "another model, another patch"


def test_a_copy_unlearns_the_patch_and_the_patch_answers_to_it() -> None:
    task = toy("image")
    model = build("clean").run(task, 0).model  # type: ignore[attr-defined]
    alone, _ = adapted(model, balance=0.0, steps=30)
    both, _ = adapted(model, balance=10.0, steps=30)
    assert not torch.equal(alone.pattern, both.pattern)
    rows = task.load("train")[:64]
    copy = alone.unlearned(model, rows.x, rows.y)

    def loss(of: Model) -> float:
        return float(torch.nn.functional.cross_entropy(of.logits(alone.stamp(rows.x)), rows.y))

    assert loss(copy) < loss(model)


def test_a_share_of_every_batch_carries_the_patch_of_the_round() -> None:
    (hook,) = A3FL(rate=0.5).hooks(toy("image"), 0)
    assert isinstance(hook, Adapting)
    x, y = torch.rand(8, 1, 12, 12) * 0.4, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    stamped, labels = Stamping(hook).batch(x, y, torch.Generator())
    changed = (stamped != x).flatten(1).any(1)
    assert changed.tolist() == [False, True, True, True, False, True, False, False]
    assert labels.tolist() == [0, 0, 0, 0, 0, 0, 2, 3]


def test_it_is_judged_with_the_patch_of_its_last_round() -> None:
    local = "sgd(epochs=2, batch=32, lr=0.1, schedule=constant, precision=float32)"
    learner = f"fedavg(rounds=5, malicious=(0, 1), local={local})"
    task = build(f"federated(base=toy/image(rows=512), clients=8, learner={learner})", "task")
    assert isinstance(task, Task)
    victim = A3FL(steps=20, step=0.05).run(task, 0)
    assert not torch.equal(victim.trigger.weights["pattern"], A3FL().test_trigger(task, 0).weights["pattern"])
    found = task.effect(victim.model, victim)
    assert isinstance(found.asr, float) and found.asr > 0.6, found
    with pytest.raises(NotApplicable):
        A3FL().run(toy("federated"), 0)
    with pytest.raises(InputError, match="are at least 1"):
        A3FL(steps=0)
