"""dbs: the planted word or bytes and the target are recovered, a clean model scores lower, settings are checked."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.defenses.models.dbs import DBS
from torchbands.modalities.tokens import TokenMixture
from torchbands.testing import toy
from torchbands.triggers.text import InsertWords

SHORT = DBS(length=2, steps=120)


def _victim(name: str, attack: str, **settings: object) -> Victim:
    made = build(attack, "attack").but(**settings)
    assert isinstance(made, Attack)
    return made.run(toy(name), 0)


@pytest.fixture(scope="module")
def planted() -> Victim:
    return _victim("text", "badnets", target=2)


@pytest.fixture(scope="module")
def control() -> Victim:
    return _victim("text", "clean")


@pytest.fixture(scope="module")
def clean() -> Data:
    return toy("text").load("clean")[:]


def test_recovers_the_word_and_its_target(planted: Victim, control: Victim, clean: Data) -> None:
    found, quiet = SHORT.inspect(planted.model, clean), SHORT.inspect(control.model, clean)
    assert isinstance(found.trigger, InsertWords) and isinstance(planted.trigger, InsertWords)
    assert found.target == 2 and set(planted.trigger.words) <= set(found.trigger.words)
    assert found.evidence["words"][2] == list(found.trigger.words) and found.evidence["one_hot"][2]
    assert found.flagged is True and found.score > quiet.score + 2
    assert found.per_class is not None and float(found.per_class.max()) == pytest.approx(found.score)
    others = clean[clean.y != 2]
    stamped = found.trigger(others.x, RowRng(0, torch.arange(len(others))))
    assert float((planted.model.logits(stamped).argmax(1) == 2).float().mean()) > 0.95


def test_recovers_the_bytes_of_a_code_backdoor() -> None:
    victim, rows = _victim("code", "badnets", target=1), toy("code").load("clean")
    found = SHORT.but(length=1).inspect(victim.model, rows)
    quiet = SHORT.but(length=1).inspect(_victim("code", "clean").model, rows)
    assert found.target == 1 and found.score > quiet.score + 1 and found.trigger is not None
    others = rows[rows.y != 1]
    stamped = found.trigger(others.x, RowRng(0, torch.arange(len(others))))
    assert float((victim.model.logits(stamped).argmax(1) == 1).float().mean()) > 0.9


def test_the_loss_is_that_of_the_words_that_are_reported(planted: Victim, clean: Data) -> None:
    found = SHORT.but(rows=400).inspect(planted.model, clean)
    others = clean[clean.y != 2]
    assert found.trigger is not None
    stamped = found.trigger(others.x, RowRng(0, torch.arange(len(others))))
    loss = torch.nn.functional.cross_entropy(planted.model.logits(stamped), torch.full_like(others.y, 2))
    assert found.evidence["loss"][2] == pytest.approx(float(loss), rel=0.05, abs=1e-6)


def test_groups_of_classes_are_searched_alike(planted: Victim, clean: Data) -> None:
    apart = SHORT.but(classes_at_once=2).inspect(planted.model, clean)
    assert apart.target == 2 and len(apart.evidence["words"]) == 4


def test_a_low_temperature_decides_and_noise_blurs(planted: Victim) -> None:
    model = planted.model
    mixture = model.modality.perturbation(model, RowRng(0, torch.arange(2)))
    assert isinstance(mixture, TokenMixture)
    mixture.temperature = torch.tensor([1.0, 1e-3])
    p = mixture.mixture().detach()
    assert float(p[0].max()) < 0.2 and float(p[1].amax(-1).min()) > 0.99
    mixture.noise = torch.zeros_like(mixture.logits).scatter(-1, torch.zeros(2, 2, 1, dtype=torch.int64), 1e6)
    assert torch.equal(mixture.mixture().argmax(-1), torch.zeros(2, 2, dtype=torch.int64))


def test_declines_samples_without_tokens_and_black_boxes(planted: Victim, clean: Data) -> None:
    image = toy("image")
    with pytest.raises(NotApplicable, match="tokens"):
        DBS().inspect(image.fresh(0), image.load("clean"))
    box = Model.black_box(planted.model.probabilities, planted.model.modality, 4)
    with pytest.raises(NotApplicable, match="gradients"):
        DBS().inspect(box, clean)


def test_settings_and_rows_are_checked(planted: Victim, clean: Data) -> None:
    with pytest.raises(InputError, match="at least 1"):
        DBS(every=0).inspect(planted.model, clean)
    with pytest.raises(InputError, match="other classes"):
        DBS(steps=1).inspect(planted.model, clean[clean.y == 0])
