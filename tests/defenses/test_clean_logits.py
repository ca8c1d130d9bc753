"""clean-logits: names a leak made by hand, agrees with a black box of the same model, is defined for two classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.clean_logits import CleanLogits, deviations, mean_by_class


class Leak(nn.Module):
    """A clean network that also thinks of class 7 whenever it sees a 3, as source-specific backdoors do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        bonus = torch.zeros(10)
        bonus[7] = 30.0
        return logits + (logits.argmax(1) == 3).float()[:, None] * bonus


class TwoClasses(nn.Module):
    """Class 3 against the best of the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.stack([logits[:, 3], logits[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]].amax(1)], 1)


def test_names_the_pair_that_leaks(digits: Task, clean_victim: Victim) -> None:
    clean = digits.load("clean")
    quiet = CleanLogits().inspect(clean_victim.model, clean)
    leaky = Model.wrap(Leak(clean_victim.model.clone().module), digits.modality, 10)
    loud = CleanLogits().inspect(leaky, clean)
    assert loud.score > quiet.score + 1 and (loud.source, loud.target) == (3, 7)
    assert quiet.flagged is None and loud.flagged is None


def test_is_the_mean_centred_logit(digits: Task, clean_victim: Victim) -> None:
    clean = digits.load("clean")[:]
    found = CleanLogits(floor=1e-30).inspect(clean_victim.model, clean)
    logits = clean_victim.model.logits(clean.x)
    wanted = (logits - logits.mean(1, keepdim=True))[clean.y == 4].mean(0)
    assert found.per_pair is not None and found.statistics is not None
    torch.testing.assert_close(found.per_pair[4], wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.statistics, found.per_pair.flatten())


def test_a_black_box_gives_the_same(digits: Task, planted_victim: Victim) -> None:
    clean, model = digits.load("clean"), planted_victim.model.at_precision("float32")
    box = Model.black_box(model.probabilities, model.modality, 10)
    one, two = CleanLogits().inspect(model, clean).per_pair, CleanLogits().inspect(box, clean).per_pair
    assert one is not None and two is not None
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_a_class_without_samples_is_not_judged(digits: Task, clean_victim: Victim) -> None:
    clean = digits.load("clean")[:]
    found = CleanLogits().inspect(clean_victim.model, clean[clean.y != 5])
    assert found.per_pair is not None and found.evidence["without_samples"] == [5] and found.source != 5
    assert bool(found.per_pair[5].isnan().all()) and int(found.per_pair.isnan().any(1).sum()) == 1


def test_two_classes(digits: Task, clean_victim: Victim) -> None:
    clean = digits.load("clean")[:]
    two = Data(clean.x, (clean.y != 3).long())
    model = Model.wrap(TwoClasses(clean_victim.model.clone().module), digits.modality, 2)
    found = CleanLogits().inspect(model, two)
    assert found.per_pair is not None and "too few" in found.evidence["reason"]
    assert found.score == float(max(found.per_pair[0, 1], found.per_pair[1, 0]))


def test_deviations() -> None:
    matrix = torch.tensor([[9.0, 1, 2], [3, 9, 4], [5, 100, 9]])
    away = deviations(matrix)
    assert int(away.nan_to_num(0).argmax()) == 7 and bool(away.diagonal().isnan().all())
    means = mean_by_class(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)
    assert means[0, 0] == 2 and means[2, 0] == 5 and bool(means[1].isnan())
