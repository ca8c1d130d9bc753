"""Defects of public toolkits between a clean row and a trained model: see docs/pitfalls.md."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Attack
from torchbands.core.data import Data, whole
from torchbands.core.federated import Updates
from torchbands.core.hook import BatchHook, ClientHook, Round
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.sgd import SGD
from torchbands.tasks.vision import Digits
from torchbands.testing import toy
from torchbands.triggers.image import MaskPattern

DOT, MARK = (5, 5), (7, 7)


def dotted(rows: int = 64) -> Data:
    """Dark images with a grey pixel at DOT; a trigger lights the one at MARK in the first half."""
    x, mask = torch.zeros(rows, 1, 12, 12), torch.zeros(1, 12, 12)
    x[:, :, DOT[0], DOT[1]] = 0.5
    mask[:, MARK[0], MARK[1]] = 1.0
    trigger = MaskPattern(weights={"mask": mask, "pattern": torch.ones(1, 12, 12)})
    return Data(x, torch.arange(rows) % 4).stamp(torch.arange(rows // 2), trigger, label=0, seed=0)


def places(x: Tensor, value: float) -> Tensor:
    """(N,) flat position of the pixel of a value, -1 where there is none."""
    hit = (x == value).flatten(1)
    return torch.where(hit.any(1), hit.float().argmax(1), -1)


class Recorder(BatchHook):
    """Keeps the batches that a hook is given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def batch(self, x: Any, y: Tensor, rng: torch.Generator) -> tuple[Any, Tensor]:
        self.seen.append(x.clone())
        return x, y


def what_the_network_sees(augment: str) -> tuple[Tensor, Tensor, Model, list[Tensor]]:
    data, hook, model = dotted(), Recorder(), toy("image").fresh(0)
    seen: list[Tensor] = []
    model.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    SGD(epochs=2, batch=16, augment=augment, pad=2, precision="float32").fit(model, data, hooks=[hook])  # type: ignore[arg-type]
    return torch.cat(seen), torch.cat(hook.seen), model, seen


@pytest.mark.parametrize("augment", ["shift", "crop-flip"])
def test_every_row_of_a_fit_is_augmented_and_the_poison_comes_first(augment: str) -> None:
    """Augmentation silently dropped, or poison baked in after it, or hooks given augmented rows."""
    seen, hooked, _, _ = what_the_network_sees(augment)
    dot, mark = places(seen, 0.5), places(seen, 1.0)
    assert len(dot.unique()) >= 20, "25 shifts, and flips where asked for"
    stamped = mark >= 0
    assert int(stamped.sum()) == 64 and len(mark[stamped].unique()) >= 15
    apart = mark[stamped] - dot[stamped]
    expected = {2 * 12 + 2} if augment == "shift" else {2 * 12 + 2, 2 * 12 - 2}
    assert set(apart.tolist()) == expected, "the mark moves with its image"
    assert set(places(hooked, 0.5).tolist()) == {DOT[0] * 12 + DOT[1]}, "hooks write before augmentation"


def test_nothing_is_augmented_unasked_or_after_training() -> None:
    seen, _, model, held = what_the_network_sees("none")
    assert set(places(seen, 0.5).tolist()) == {DOT[0] * 12 + DOT[1]}
    _, _, model, held = what_the_network_sees("crop-flip")
    held.clear()
    model.logits(dotted()[:].x)
    assert torch.equal(torch.cat(held), whole(dotted().x)), "evaluation sees rows as they are"


@dataclass(frozen=True, kw_only=True)
class Counting(Trigger):
    """Counts the rows that it is asked to write on."""

    counts: ClassVar[list[int]] = []

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        self.counts.append(len(batch))
        return (batch + 0.5).clamp(0, 1)


def test_only_poisoned_rows_are_written_and_only_once_a_fit() -> None:
    """Poisoning all rows to keep a tenth; poisoning again in every epoch."""
    Counting.counts.clear()
    data = dotted().stamp(torch.arange(1, 64, 8), Counting(), label=0, seed=1)
    assert Counting.counts == [], "stamping is lazy"
    SGD(epochs=3, batch=16, precision="float32").fit(toy("image").fresh(0), data)
    assert sum(Counting.counts) == 8


def test_poisoning_is_linear_in_the_rows() -> None:
    """`row in list` for every row: 10,000 of 100,000 rows take minutes that way; this takes a fraction of a second."""
    task, n = toy("observation"), 100_000
    attack = build("badnets")
    assert isinstance(attack, Attack)
    started = time.process_time()
    data = attack.poison(Data(torch.zeros(n, 8), torch.arange(n) % 4), task, 0)
    assert int(data.blind().y.eq(0).sum()) == n // 4 + n // 10
    assert time.process_time() - started < 5


def test_train_clean_and_test_rows_are_scaled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalised with other constants in training than in testing."""
    images, labels = Digits().arrays("test")
    monkeypatch.setattr(Digits, "arrays", lambda self, part: (images, labels))
    splits = {name: Digits()._cut(name, 0)[:].x for name in ("train", "clean", "test")}
    assert len(splits["train"]) + len(splits["clean"]) == len(splits["test"]) == len(images)
    raw = {row.numpy().tobytes() for row in splits["test"]}
    for name, x in splits.items():
        assert x.dtype == torch.float32 and float(x.min()) >= 0.0 and float(x.max()) == 1.0
        assert {row.numpy().tobytes() for row in x} <= raw, f"a row of {name} is not the same row in test"


def test_the_network_normalises_alike_in_training_and_in_evaluation(digits: Task) -> None:
    model, x = digits.fresh(0), digits.load("test")[:8].x
    normalised: list[Tensor] = []
    layer = next(m for name, m in model.module.named_modules() if name == "normalize")
    layer.register_forward_hook(lambda _, args, out: normalised.append(out.detach().clone()))
    model.logits(x)
    with model.training():
        model.run(model.encode(x))
    assert torch.equal(*normalised) and "normalize.mean" in model.module.state_dict()


@dataclass
class Scaled(ClientHook):
    """Model replacement: malicious updates are scaled up."""

    factor: float
    sizes: list[int] = field(default_factory=list)

    def updates(self, sent: Updates, round_: Round) -> Updates:
        self.sizes.append(sent.weights.shape[1])
        return replace(sent, weights=self.factor * sent.weights)


def test_running_statistics_are_no_part_of_a_client_s_update() -> None:
    """Statistics in the update vector: scaled or sign-flipped, variances turn negative and the model into NaN."""
    task = toy("image")
    rows = task.load("train")[:256]
    data = Data(rows.x, rows.y, meta={"client": torch.arange(256) % 4})
    local = SGD(epochs=4, batch=32, lr=0.02, precision="float32")
    model, hook = task.fresh(0), Scaled(20.0)
    before = {k: v.clone() for k, v in model.module.named_buffers()}
    FedAvg(rounds=2, malicious=(0,), local=local).fit(model, data, hooks=[hook])
    assert hook.sizes == [sum(p.numel() for p in model.module.parameters())] * 2
    norms = [m for m in model.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.running_var is not None and float(m.running_var.min()) > 0 for m in norms)
    assert torch.isfinite(model.logits(rows.x)).all()
    moved = [k for k, v in model.module.named_buffers() if k.endswith("running_mean") and not torch.equal(v, before[k])]
    assert len(moved) == len(norms), "clients' statistics are averaged"


@pytest.mark.parametrize("name", ["mean", "median", "trimmed-mean", "krum", "bulyan", "flame", "dnc", "rlr"])
def test_an_aggregator_does_not_depend_on_the_order_of_clients(name: str) -> None:
    """A detector of clients that worked only because of the order they were stored in."""
    aggregator: Any = build({"role": "aggregator", "name": name})
    weights = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    sent, model = Updates(weights, weights[:, :4], torch.arange(7), torch.full((7,), 9)), toy("federated").fresh(0)
    plain, turned = (aggregator.start(model).step(s, torch.zeros(20)) for s in (sent, sent.at(order)))
    torch.testing.assert_close(plain.weights, turned.weights)
    torch.testing.assert_close(plain.buffers, turned.buffers)
    assert (plain.suspicion is None) == (turned.suspicion is None) == (name == "mean")
    if plain.suspicion is not None:
        torch.testing.assert_close(plain.suspicion[order], turned.suspicion)
