"""free-eagle: finds a blended backdoor without data, stays quiet on a clean model, cuts where everything passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Attack, Victim
from torchbands.core.budget import MOST
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.defenses.models.free_eagle import FreeEagle, anomaly, middle_cut
from torchbands.modalities.image import Image
from torchbands.networks.resnet import ResNet


@pytest.fixture(scope="module")
def blended(digits: Task) -> Victim:
    attack = build("blended").but(target=2)
    assert isinstance(attack, Attack)
    return attack.run(digits, 0)


class TwoClasses(nn.Module):
    """Class 2 against the best of the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.stack([logits[:, 2], logits[:, [0, 1, 3, 4, 5, 6, 7, 8, 9]].amax(1)], 1)


def test_finds_a_blended_backdoor_without_data(digits: Task, blended: Victim, clean_victim: Victim) -> None:
    nothing = digits.load("clean")[:0]
    loud, quiet = (FreeEagle().inspect(v.model, nothing) for v in (blended, clean_victim))
    assert loud.flagged is True and loud.target == 2
    assert quiet.flagged is False and loud.score > 2 * quiet.score
    assert loud.per_pair is not None and loud.per_pair.shape == (10, 10)
    assert bool(loud.per_pair.diagonal().isnan().all()) and int(loud.per_pair.isnan().sum()) == 10
    assert loud.per_class is not None and int(loud.per_class.argmax()) == 2


def test_two_classes_are_scored_but_never_flagged(digits: Task, blended: Victim) -> None:
    model = Model.wrap(TwoClasses(blended.model.clone().module), digits.modality, 2)
    found = FreeEagle(steps=50).inspect(model, digits.load("clean")[:0])
    assert found.flagged is None and "too few" in found.evidence["reason"]
    assert found.per_pair is not None and found.score == float(found.per_pair.nan_to_num(-torch.inf).max())


def test_together_or_one_class_at_a_time(digits: Task, clean_victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing, model = digits.load("clean")[:0], clean_victim.model.at_precision("float32")
    together = FreeEagle(steps=30, tolerance=-1).inspect(model, nothing).per_pair
    monkeypatch.setitem(MOST, "cpu", 2)
    alone = FreeEagle(steps=30, tolerance=-1).inspect(model, nothing).per_pair
    assert together is not None and alone is not None
    off = ~torch.eye(10, dtype=torch.bool)
    torch.testing.assert_close(together[off], alone[off], rtol=1e-2, atol=1e-2)


def test_weight_decay_holds_hidden_states_back(digits: Task, clean_victim: Victim) -> None:
    nothing, model = digits.load("clean")[:0], clean_victim.model.at_precision("float32")
    free, held = (FreeEagle(steps=200, tolerance=-1, decay=d).inspect(model, nothing).per_pair for d in (0.0, 0.5))
    assert free is not None and held is not None
    assert float(held.nanmean()) > float(free.nanmean()) + 0.5


def test_the_papers_values() -> None:
    """One hidden state of every class, 1,000 steps of Adam."""
    eagle = FreeEagle()
    assert (eagle.dummies, eagle.steps, eagle.lr, eagle.decay, eagle.threshold) == (1, 1000, 1e-2, 5e-3, 2.0)


def test_anomaly() -> None:
    usual = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9])
    assert (
        anomaly(torch.cat([usual, torch.tensor([1.15])]))[0] < 2 < anomaly(torch.cat([usual, torch.tensor([3.0])]))[0]
    )
    assert anomaly(torch.zeros(10))[0] == 0
    assert anomaly(torch.tensor([0.1, 0.7]))[0] == pytest.approx(0.5)  # whatever the two values are


def test_cuts_in_the_middle(clean_victim: Victim) -> None:
    assert middle_cut(clean_victim.model)[0] == "norms.0"
    linear = Model.wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), Image(channels=1, size=8), 10)
    assert middle_cut(linear)[0] is None  # before the head


def test_cuts_a_residual_network_between_blocks() -> None:
    modality = Image(channels=1, size=8)
    made = build("resnet")
    net = made.build(modality, 10)  # type: ignore[attr-defined]
    assert isinstance(net, ResNet)
    layer, cut = middle_cut(Model.wrap(net, modality, 10))
    assert layer is not None and isinstance(net.get_submodule(layer), nn.Module)
    x = modality.random(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(cut.head(cut.body(x)), net(x), rtol=1e-3, atol=1e-3)


def test_declines_a_black_box(digits: Task, clean_victim: Victim) -> None:
    box = Model.black_box(clean_victim.model.probabilities, digits.modality, 10)
    with pytest.raises(NotApplicable, match="gradients"):
        FreeEagle().inspect(box, digits.load("clean")[:0])
