"""One recipe makes every model: of tasks, of references, of defenses that train."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from torchbands.core.data import Data
from torchbands.core.generator import Generator
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Recipe
from torchbands.core.seeding import seed_of, seeded
from torchbands.scanner.reference_files import CARD, WEIGHTS
from torchbands.scanner.reference_training import references_of
from torchbands.tasks.federated import Federated
from torchbands.testing.toys import ToyText, toy

TASK = toy("tabular", rows=64)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return model.module.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name].cpu(), other[name].cpu()) for name in one)


def by_hand(*seed: object, data: Data, fit: int) -> tuple[Model, Model]:
    """A network drawn from a seed, before and after its training."""
    with seeded(*seed):
        module = TASK.network.build(TASK.modality, TASK.classes)
    model = Model(module, TASK.modality, TASK.classes)
    fresh = model.clone()
    TASK.learner.fit(model, data, seed=fit)
    return fresh, model


def test_weights_are_drawn_as_those_of_victims_that_were_kept() -> None:
    """Or a record would be of another model than the same settings give now."""
    fresh, trained = by_hand("init", TASK.network.spec(), 3, data=TASK.load("train"), fit=seed_of("fit", 3))
    assert same(weights(TASK.fresh(3)), weights(fresh)) and same(weights(TASK.recipe.fresh(3)), weights(fresh))
    assert same(weights(TASK.train(TASK.load("train"), seed=3)), weights(trained))
    assert not same(weights(fresh), weights(trained)) and not same(weights(TASK.fresh(4)), weights(fresh))


def test_weights_are_drawn_as_those_of_references_that_were_kept(tmp_path: Path) -> None:
    (member,) = references_of(TASK, tmp_path / "refs", n=1, profile="fast").members()
    identity = json.loads((member / CARD).read_text())["seed"]
    assert identity == seed_of("reference", 0, 0)
    every = TASK.but(rows=0).load("train")
    drawn = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(identity))[:64]]
    assert same(load_file(member / WEIGHTS), weights(by_hand("reference", identity, data=drawn, fit=identity)[1]))


WORDS = tuple("abcd")


def answering(module: nn.Module, modality: Modality, classes: int) -> Model:
    return Generator(module, modality, WORDS)


class Says(ToyText):
    """Answers with a word."""

    @property
    def recipe(self) -> Recipe:
        return super().recipe.but(model=answering)


def test_a_task_around_another_makes_the_models_that_the_other_makes() -> None:
    inner = Says(rows=64)
    outer = Federated(base=inner, clients=4)
    assert isinstance(inner.fresh(0), Generator) and isinstance(outer.fresh(0), Generator)
    assert outer.recipe.learner == outer.learner != inner.learner and outer.recipe.network == inner.network
