"""META-SIFT: the head's virtual step by hand, what it sifts out, and what it cannot. Cross-split: what it can."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.defenses.data._sifters import fresh
from torchbands.defenses.data.cross_split import CrossSplit
from torchbands.defenses.data.meta_sift import MetaSift, _weights, sifted
from torchbands.measures.effectiveness import auroc


class _Caught:
    """An optimiser that keeps the gradients and changes nothing."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.gradients: list[Tensor] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.module.zero_grad()

    def step(self) -> None:
        self.gradients = [p.grad.clone() for p in self.module.parameters() if p.grad is not None]


def test_the_virtual_step_is_that_of_a_linear_head() -> None:
    rng = torch.Generator().manual_seed(0)
    h, y = torch.randn(16, 5, generator=rng), torch.arange(16) % 3
    torch.manual_seed(0)
    head, weigh = nn.Linear(5, 3), nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    caught = _Caught(weigh)
    MetaSift(meta_lr=0.7)._turn(weigh, caught, head(h).detach(), h, y)  # type: ignore[arg-type]

    losses = F.cross_entropy(head(h), y, reduction="none")
    weights = _weights(weigh, losses)
    inner = (weights / weights.sum() * losses).sum()
    slope_w, slope_b = torch.autograd.grad(inner, list(head.parameters()), create_graph=True)
    virtual = F.cross_entropy(h @ (head.weight - 0.7 * slope_w).T + head.bias - 0.7 * slope_b, y, reduction="none")
    left = 1 - _weights(weigh, virtual)
    weigh.zero_grad()
    (-(left / left.sum() * virtual).sum()).backward()
    expected = [p.grad for p in weigh.parameters()]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(caught.gradients, expected, strict=True))


def test_rows_that_are_learned_late_are_sifted_out(generous: Task) -> None:
    data = generous.load("train")[:]
    wrong = torch.zeros(len(data), dtype=torch.bool)
    wrong[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[: len(data) // 10]] = True
    flipped = data.with_labels(wrong.nonzero().flatten(), (data.y[wrong] + 1) % 10)
    scores = MetaSift().score(flipped, generous.fresh(0)).scores
    picked = sifted(scores, flipped.y, 200)
    assert len(picked) <= 210 and torch.bincount(flipped.y[picked], minlength=10).min() >= 15
    assert float(wrong[picked].float().mean()) < 0.02  # against a base rate of 0.1
    assert auroc(scores[wrong], scores[~wrong]) > 0.8


@pytest.mark.parametrize(("name", "rate"), [("badnets", 0.01), ("blended", 0.05)])
def test_a_pick_holds_far_less_poison_than_the_data(generous: Task, name: str, rate: float) -> None:
    attack = build(name, "attack").but(rate=rate)
    assert isinstance(attack, Attack)
    data = attack.poison(generous.load("train"), generous, 0)
    assert data.poisoned is not None
    scores = MetaSift().score(data.blind(), generous.fresh(0)).scores
    assert float(data.poisoned[sifted(scores, data.y, 200)].float().mean()) < rate / 4


def test_in_unpoisoned_data_no_class_is_singled_out(generous: Task) -> None:
    data = generous.load("train")[:]
    suspicion = MetaSift(sifters=1).score(data, generous.fresh(0))
    scores = suspicion.scores
    assert suspicion.flagged is None and float(scores.min()) >= 0 and float(scores.max()) <= 1
    worst = data.y[scores.argsort(descending=True)[: len(data) // 10]]
    assert float(torch.bincount(worst, minlength=10).max()) / len(worst) < 0.4


def test_sifted_takes_each_class_by_its_share() -> None:
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    scores = torch.arange(100).float()
    picked = sifted(scores, y, 20)
    assert torch.bincount(y[picked]).tolist() == [12, 6, 2]
    assert picked.tolist() == [*range(12), *range(60, 66), 90, 91]
    assert len(sifted(scores, y, 10_000)) == 100


def test_a_fresh_network_forgets_and_is_the_same_for_the_same_identity(backdoored: Victim) -> None:
    model = backdoored.model
    one, two, three = fresh(model, 1), fresh(model, 1), fresh(model, 2)
    x = backdoored.task.load("test")[:64]
    assert float((one.logits(x.x).argmax(1) == x.y).float().mean()) < 0.4
    assert torch.equal(one.logits(x.x), two.logits(x.x)) and not torch.equal(one.logits(x.x), three.logits(x.x))
    assert float((model.logits(x.x).argmax(1) == x.y).float().mean()) > 0.8


def test_cross_split_finds_the_planted_rows_and_names_the_class(
    backdoored: Victim, poisoned_rows: tuple[Data, Tensor]
) -> None:
    data, truth = poisoned_rows
    suspicion = CrossSplit().score(data, backdoored.model)
    assert suspicion.flagged is not None
    assert float(suspicion.flagged[truth].float().mean()) > 0.95
    assert float(suspicion.flagged[~truth].float().mean()) < 0.01
    assert auroc(suspicion.scores[truth], suspicion.scores[~truth]) > 0.99
    index = {c: v["index"] for c, v in suspicion.evidence["classes"].items()}
    assert max(index, key=lambda c: index[c]) == "0"
    picked = sifted(suspicion.scores, data.y, 200)
    assert float(truth[picked].float().mean()) < 0.005  # against a base rate of 0.05


def test_cross_split_flags_nothing_in_unpoisoned_data(untouched: Victim) -> None:
    data = untouched.training_data().blind()
    suspicion = CrossSplit().score(data, untouched.model)
    assert suspicion.flagged is not None and not bool(suspicion.flagged.any())
    assert len(suspicion.evidence["classes"]) == 10


def test_cross_split_without_crossing_trains_nothing(backdoored: Victim, poisoned_rows: tuple[Data, Tensor]) -> None:
    data, truth = poisoned_rows
    with backdoored.model.shared():
        backdoored.model.outputs(data.x)
        before = backdoored.model.passes.forward
        suspicion = CrossSplit(crossing=False).score(data, backdoored.model)
    assert backdoored.model.passes.forward == before
    assert auroc(suspicion.scores[truth], suspicion.scores[~truth]) > 0.95


def test_what_cannot_be_judged_is_declined(generous: Task, untouched: Victim) -> None:
    data = generous.load("train")[:200]
    box = Model.black_box(untouched.model.probabilities, generous.modality, 10)
    for made in (MetaSift(), CrossSplit()):
        with pytest.raises(NotApplicable):
            made.score(data, box)
    with pytest.raises(InputError, match="sifters"):
        MetaSift(sifters=0)
    few = CrossSplit().score(data[:30], untouched.model)  # no class has 20 rows
    assert few.evidence["classes"] == {} and not bool(few.flagged.any())  # type: ignore[union-attr]
