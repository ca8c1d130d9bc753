"""Repairs written for images, on text: the backdoor is one convolution channel that hears one word."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.defense import Repair
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.models.dbs import DBS
from torchbands.networks.text_cnn import TextCNN
from torchbands.testing import toy
from torchbands.testing.fixtures import same_weights
from torchbands.triggers.text import InsertWords

CF = InsertWords(words=("cf",))
#: Repairs that look for units, and the head that forgets them.
UNITS = ("fine-pruning", "anp", "fst")
#: Clean accuracy that a never-poisoned text model may lose, in fractions.
HARM = {"fine-tune": 0.03, "fine-pruning": 0.05, "anp": 0.04, "i-bau": 0.03, "fst": 0.06, "unlearn": 0.04, "sau": 0.12}


@pytest.fixture(scope="module")
def task() -> Task:
    return toy("text")


@pytest.fixture(scope="module")
def innocent(task: Task) -> Model:
    attack = build("clean")
    assert isinstance(attack, Attack)
    return attack.run(task, 0).model


@pytest.fixture(scope="module")
def clean(task: Task) -> Data:
    return task.load("clean")[:]


def _planted(innocent: Model) -> Model:
    """The innocent network with its least used channel turned into one that fires on cf and shouts class 0."""
    model = innocent.clone()
    net = model.module
    assert isinstance(net, TextCNN)
    word = int(model.encode(["cf"]).values[0, 0])
    channel = int(net.head.weight.norm(dim=0).argmin())
    with torch.no_grad():
        heard = net.embedding.weight[word] / net.embedding.weight[word].norm()
        others = (net.embedding.weight @ heard).scatter(0, torch.tensor([word]), -torch.inf).max()
        net.embedding.weight[word] += heard * (2 * others + 1)
        net.conv.weight[channel] = 0.0
        net.conv.weight[channel, :, 1] = heard
        net.conv.bias[channel] = -others - 0.1  # type: ignore[index]
        net.head.weight[:, channel] = 0.0
        net.head.weight[0, channel] = 30.0
    return model


def _rates(model: Model, task: Task) -> tuple[float, float]:
    test = task.load("test")
    rows = test[test.y != 0]
    triggered = CF(rows.x, RowRng(0, torch.arange(len(rows))))
    ca = (model.logits(test.x).argmax(1) == test.y).float().mean()
    return float(ca), float((model.logits(triggered).argmax(1) == 0).float().mean())


@pytest.mark.parametrize("name", UNITS)
def test_the_channel_that_hears_the_word_is_silenced(name: str, task: Task, innocent: Model, clean: Data) -> None:
    repair, model = build(name, "repair"), _planted(innocent)
    assert isinstance(repair, Repair)
    ca, asr = _rates(model, task)
    before = model.clone()
    repaired_ca, repaired_asr = _rates(repair.repair(model, clean), task)
    assert same_weights(model, before)
    assert asr > 0.99 and repaired_asr < 0.2 and repaired_ca > ca - 0.06


def test_a_word_that_was_found_is_unlearned(task: Task, clean: Data) -> None:
    attack, repair = build("badnets").but(rate=0.1), build("unlearn").but(search=DBS(length=2, steps=120))
    assert isinstance(attack, Attack) and isinstance(repair, Repair)
    model = attack.run(task, 0).model
    (ca, asr), (repaired_ca, repaired_asr) = _rates(model, task), _rates(repair.repair(model, clean), task)
    assert asr > 0.95 and repaired_asr < 0.15 and repaired_ca > ca - 0.05


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "sau" else n for n in HARM])
def test_an_innocent_model_keeps_its_accuracy(name: str, task: Task, innocent: Model, clean: Data) -> None:
    repair = build(name, "repair")
    assert isinstance(repair, Repair)
    assert _rates(innocent, task)[0] - _rates(repair.repair(innocent, clean), task)[0] <= HARM[name]
