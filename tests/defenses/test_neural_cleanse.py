"""neural-cleanse: finds an exact backdoor, ranks a trained one, keeps the best trigger, equals a loop over classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng, seed_of
from torchbands.core.task import Task
from torchbands.defenses.models._inversion import CostSchedule, Rules
from torchbands.defenses.models.neural_cleanse import NeuralCleanse, anomaly_index
from torchbands.modalities.image import MaskedPattern
from torchbands.testing import toy
from torchbands.triggers.image import Patch
from torchbands.triggers.text import InsertWords

SHORT = NeuralCleanse(epochs=12, patience=2, batch=16, steps=3)


class OnePixel(nn.Module):
    """A clean network in which one bright corner pixel, which no digit has, means class 3."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        bonus = torch.zeros(10)
        bonus[3] = 40.0
        return logits + x[:, 0, 0, 0][:, None] * bonus


class TwoClasses(nn.Module):
    """Class 3 against the best of the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.stack([logits[:, 3], logits[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]].amax(1)], 1)


@pytest.fixture(scope="module")
def clean(digits: Task) -> Data:
    return digits.load("clean")


def share(model: Model, x: Tensor, label: int) -> float:
    """Share of rows predicted as a class."""
    return int((model.logits(x).argmax(1) == label).sum()) / len(x)


def test_finds_an_exact_backdoor_and_its_trigger(clean: Data, clean_victim: Victim) -> None:
    model = Model.wrap(OnePixel(clean_victim.model.clone().module), clean_victim.model.modality, 10)
    found = NeuralCleanse(epochs=40).inspect(model, clean)
    assert found.flagged is True and found.target == 3
    assert found.evidence["sizes"][3] < 2.5  # about one pixel
    assert found.trigger is not None
    stamped = found.trigger(clean.x[torch.arange(len(clean))], RowRng(0, torch.arange(len(clean))))
    assert share(model, stamped, 3) > 0.95
    assert found.per_class is not None and int(found.per_class.argmax()) == 3


def test_a_trained_backdoor_makes_its_target_the_cheapest(digits: Task, clean: Data) -> None:
    """A corner that is dark in every digit. Searches end in other minima from processor to processor, so that three
    victims are judged together: two of them at least have the target as their cheapest class."""
    train, corner = digits.load("train"), Patch(size=2, margin=0, corner="top-left")
    named, cheaper, others = 0, [], []
    for seed in (0, 1, 2):
        at = torch.arange(seed, len(train), 10)
        x, y = train.x[torch.arange(len(train))], train.y.clone()
        x[at], y[at] = corner(x[at], RowRng(seed, at)), 0
        loud, quiet = (
            NeuralCleanse(epochs=40).inspect(digits.train(data, seed=seed), clean) for data in (Data(x, y), train)
        )
        assert quiet.target != 0
        named += loud.target == 0
        ratio = torch.tensor(loud.evidence["sizes"]) / torch.tensor(quiet.evidence["sizes"])
        cheaper.append(float(ratio[0].log()))
        others.append(float(ratio[1:].log().mean()))
    assert named >= 2
    assert sum(cheaper) / 3 < -0.3 and abs(sum(others)) / 3 < 0.15


def test_a_loop_over_classes_gives_the_same_answer(clean: Data, planted_victim: Victim) -> None:
    together = SHORT.inspect(planted_victim.model, clean)
    alone = SHORT.but(classes_at_once=1).inspect(planted_victim.model, clean)
    a, b = torch.tensor(together.evidence["sizes"]), torch.tensor(alone.evidence["sizes"])
    torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    assert together.target == alone.target


def test_kept_triggers_succeed_though_the_last_ones_may_not(clean: Data, planted_victim: Victim) -> None:
    model = planted_victim.model
    found = SHORT.but(cost=0.05, epochs=20).inspect(model, clean)  # a weight that overshoots
    assert found.evidence["reached"][found.target] and found.trigger is not None
    stamped = found.trigger(clean.x[torch.arange(len(clean))], RowRng(0, torch.arange(len(clean))))
    assert found.target is not None and share(model, stamped, found.target) >= 0.9
    assert found.evidence["success"][found.target] == pytest.approx(share(model, stamped, found.target), abs=0.01)


def rules() -> CostSchedule:
    return CostSchedule(Rules(1.0, 2.0, 0.99, 2, 3, 0.99), 2, torch.device("cpu"))


def step(s: CostSchedule, success: list[float], size: list[float]) -> list[bool]:
    return s.step(torch.tensor(success), torch.tensor(size), torch.tensor([True, True])).tolist()


def test_only_successful_triggers_are_snapshots_and_only_smaller_ones() -> None:
    s = rules()
    assert step(s, [1.0, 0.5], [9.0, 1.0]) == [True, False]
    assert step(s, [1.0, 0.98], [8.0, 0.5]) == [True, False]
    assert step(s, [1.0, 1.0], [8.5, 7.0]) == [False, True]
    assert s.best.tolist() == [8.0, 7.0]


def test_each_class_has_its_own_weight() -> None:
    s = rules()
    for _ in range(2):
        step(s, [1.0, 0.0], [9.0, 9.0])
    assert s.cost.tolist() == [1.0, 0.0]  # started; never succeeded
    for _ in range(2):
        step(s, [1.0, 0.0], [9.0, 9.0])
    assert s.cost.tolist() == [2.0, 0.0]
    for _ in range(2):
        step(s, [0.0, 0.0], [9.0, 9.0])
    assert s.cost[0].item() == pytest.approx(2.0 / 2**1.5)
    assert s.done.tolist() == [True, False]  # gone both ways and waited 3


def test_the_model_sees_the_samples_unaugmented(clean: Data, clean_victim: Victim) -> None:
    model = clean_victim.model
    seen: list[Tensor] = []
    handle = model.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    try:
        NeuralCleanse(epochs=1, steps=1, batch=8).inspect(model, clean)
    finally:
        handle.remove()
    start = model.modality.perturbation(model, RowRng(seed_of("neural-cleanse", 0), torch.arange(10)))
    assert isinstance(start, MaskedPattern)
    mask, pattern = start.mask().detach(), start.pattern().detach()
    which = torch.arange(10).repeat_interleave(8)
    images = (torch.cat(seen)[:80] - mask[which] * pattern[which]) / (1 - mask[which])
    rows = clean.x[torch.arange(len(clean))]
    away = torch.cdist(images.flatten(1).double(), rows.flatten(1).double()).min(1).values
    assert float(away.median()) < 1e-3


def test_index_is_one_sided_and_floored() -> None:
    assert anomaly_index(torch.tensor([10.0, 11, 9, 10, 100]))[0] < 2  # a large trigger is no sign
    assert anomaly_index(torch.tensor([10.0, 11, 9, 10, 1]))[0] > 2
    assert anomaly_index(torch.tensor([1.0, 8, 10, 11, 12]))[0] == pytest.approx(9 / (1.4826 * 2))
    assert anomaly_index(torch.tensor([10.0, 10, 10, 10, 9.9]))[0] == pytest.approx(1.0, rel=1e-4)  # MAD 0
    assert anomaly_index(torch.zeros(5))[0] == 0.0


def test_two_classes_are_scored_but_never_flagged(clean: Data, clean_victim: Victim) -> None:
    nets = [clean_victim.model.clone().module, OnePixel(clean_victim.model.clone().module)]
    models = [Model.wrap(TwoClasses(net), clean_victim.model.modality, 2) for net in nets]
    found = [SHORT.but(epochs=20).inspect(model, clean) for model in models]
    assert all(f.flagged is None and "too few" in f.evidence["reason"] for f in found)
    assert found[1].score > found[0].score + 0.5 and found[1].target == 0


def test_labels_are_not_read_and_the_model_is_left_alone(clean: Data, planted_victim: Victim) -> None:
    model = planted_victim.model
    before = {k: t.clone() for k, t in model.module.state_dict().items()}
    model.module.zero_grad(set_to_none=True)
    one = SHORT.but(epochs=2).inspect(model, clean)
    two = SHORT.but(epochs=2).inspect(model, Data(clean.x, clean.y.flip(0)))
    assert one.evidence == two.evidence
    assert all(torch.equal(t, before[k]) for k, t in model.module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())


def test_declines_a_black_box(clean: Data, clean_victim: Victim) -> None:
    box = Model.black_box(clean_victim.model.probabilities, clean_victim.model.modality, 10)
    with pytest.raises(NotApplicable, match="gradients"):
        NeuralCleanse().inspect(box, clean)


@pytest.mark.parametrize("target", [0, 2])
def test_finds_the_word_of_a_text_backdoor(target: int) -> None:
    task, attack, control = toy("text"), build("badnets").but(target=target), build("clean")
    assert isinstance(attack, Attack) and isinstance(control, Attack)
    victim = attack.run(task, 0)
    found = NeuralCleanse(epochs=40).inspect(victim.model, task.load("clean"))
    quiet = NeuralCleanse(epochs=40).inspect(control.run(task, 0).model, task.load("clean"))
    assert found.target == target and found.evidence["success"][target] > 0.95
    assert found.score > quiet.score and found.evidence["sizes"][target] < min(quiet.evidence["sizes"]) - 0.3
    assert isinstance(found.trigger, InsertWords) and isinstance(victim.trigger, InsertWords)
    assert set(victim.trigger.words) & set(found.trigger.words)
