"""DECREE: a poisoned encoder is told from a clean one by the trigger that makes embeddings alike."""

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
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.models._alike import alike
from torchbands.defenses.models.decree import Decree, extent
from torchbands.testing.toys import toy


def _victim(name: str, task: Task, seed: int = 0) -> Victim:
    made = build(name, "attack")
    assert isinstance(made, Attack)
    return made.run(task, seed)


def _rows(task: Task) -> Data:
    return task.load("clean").blind().sample(128, "decree")


@pytest.fixture(scope="module")
def images(digits: Task) -> Task:
    """Digits read by a network whose embeddings a patch can make alike."""
    return digits.but(network=build("plain-cnn"))


class Collapsing(nn.Module):
    """A clean network whose embedding becomes one and the same as the 2x2 corner, dark in every digit, lights up."""

    def __init__(self, net: nn.Module, wanted: Tensor) -> None:
        super().__init__()
        self.net, self.head = net, net.head
        net.head = nn.Identity()
        self.register_buffer("wanted", wanted)

    def forward(self, x: Tensor) -> Tensor:
        lit = x[:, 0, :2, :2].mean((1, 2))[:, None]
        assert isinstance(self.wanted, Tensor) and isinstance(self.head, nn.Module)
        logits: Tensor = self.head(torch.lerp(self.net(x), self.wanted, lit))
        return logits


@pytest.fixture(scope="module", params=[0, 1])
def pair(request: pytest.FixtureRequest, images: Task) -> tuple[Model, Model]:
    """An encoder with a backdoor to class 0 written into it, and the same without."""
    clean, test = _victim("clean", images, request.param).model, images.load("test")
    wanted = clean.features(test[test.y == 0].x).mean(0)
    return Model.wrap(Collapsing(clean.clone().module, wanted), images.modality, 10), clean


def test_an_encoder_of_images_is_flagged_by_the_papers_rule_and_a_clean_one_is_not(
    images: Task, pair: tuple[Model, Model]
) -> None:
    """And the trigger that is given back works on rows that the search has not seen."""
    planted, clean = (Decree().inspect(model, _rows(images)) for model in pair)
    assert planted.flagged is True and clean.flagged is False
    assert planted.target == 0 and planted.score > clean.score + 0.2
    assert planted.evidence["share"] < 0.08 < 0.2 < clean.evidence["share"]
    assert planted.trigger is not None
    test = images.load("test")
    rows = test[test.y != 0]
    stamped = planted.trigger(rows.x, RowRng(0, torch.arange(len(rows))))
    assert float((pair[0].logits(stamped).argmax(1) == 0).float().mean()) > 0.8
    assert float((pair[0].logits(rows.x).argmax(1) == 0).float().mean()) < 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_planted_word_is_found(seed: int) -> None:
    task = toy("text")
    planted, clean = (
        Decree().inspect(_victim(name, task, seed).model, _rows(task), seed=seed) for name in ("badencoder", "clean")
    )
    assert planted.evidence["reached"] and not clean.evidence["reached"]
    assert "cf" in planted.trigger.words and planted.target == 0  # type: ignore[union-attr]
    assert clean.score < -1.0 < -0.2 < planted.score < 0.0
    assert planted.flagged is None and clean.flagged is None  # the paper's rule is for images


@pytest.mark.parametrize(("name", "starts"), [("observation", 6), ("code", 1)])
def test_other_kinds_of_samples(name: str, starts: int) -> None:
    """From one start in three the search finds the planted shift of an observation; no start finds one as small in a
    clean encoder."""
    task, decree = toy(name), Decree(starts=starts)
    planted, clean = (decree.inspect(_victim(a, task).model, _rows(task)) for a in ("badencoder", "clean"))
    assert planted.score > clean.score + 0.1 and planted.target == 0


def test_no_label_is_read(images: Task) -> None:
    model, rows = _victim("badencoder", images).model, _rows(images)
    other = Data(rows.x, torch.zeros_like(rows.y))
    short = Decree(steps=20)
    assert short.inspect(model, rows).score == short.inspect(model, other).score


def test_alike_is_the_mean_of_all_pairs() -> None:
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [F.cosine_similarity(features[i], features[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert float(alike(features)) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert float(alike(features[:1].expand(7, 5))) == pytest.approx(1.0)


def test_extent_counts_what_a_trigger_could_cover(digits: Task) -> None:
    text = toy("text")
    assert extent(_victim("clean", text).model.embed(["a b"])) == 24
    assert extent(digits.fresh(0).embed(digits.load("test")[:2].x)) == 64


def test_what_it_cannot_judge_is_declined(images: Task) -> None:
    model, rows = images.fresh(0), _rows(images)
    box = Model.black_box(model.probabilities, model.modality, model.classes)
    with pytest.raises(NotApplicable, match="black box"):
        Decree().inspect(box, rows)
    with pytest.raises(InputError, match="two or more"):
        Decree().inspect(model, rows[:1])
    with pytest.raises(InputError, match="rows is at least 2"):
        Decree(rows=1).inspect(model, rows)
    headless = Model(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()), model.modality, 10)
    with pytest.raises(NotApplicable, match="no linear head"):
        Decree().inspect(headless, rows)
