"""Which models there are: references, fresh models of their recipe, of other recipes, and backdoored ones.

Settings of views and of the calibration were fixed on other models (Fashion-MNIST, seeds 100 to 211) before any of
these were judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torchbands.core.attack import Attack
from torchbands.core.recipe import Learner
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.learners.sgd import SGD
from torchbands.networks import PlainCNNNetwork, SmallCNNNetwork
from torchbands.networks.gru import GRUNetwork
from torchbands.networks.text_cnn import TextCNNNetwork
from torchbands.tasks.text import SST2, AGNews
from torchbands.tasks.vision import GTSRB, FashionMNIST
from torchbands.testing.toys import toy

Spec = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One data set with one architecture and one recipe of references.

    Attributes:
        fresh: never-poisoned models of the references' recipe. foreign: recipe name -> (task, models).
        families: attack family -> (settings of its models in turn, models).
        targets, clean_label_targets: taken in turn. Clean-label attacks need classes with many rows that have
            neighbours: on Fashion-MNIST none of them takes on trousers.
    """

    name: str
    task: Task
    references: int
    fresh: int
    foreign: dict[str, tuple[Task, int]]
    families: dict[str, tuple[list[Spec], int]] = field(default_factory=dict)
    targets: tuple[int, ...] = (1, 4, 7, 0, 3)
    clean_label_targets: tuple[int, ...] = (0, 2, 4, 6, 3)


@dataclass(frozen=True)
class Job:
    """One model: a task, an attack, a seed."""

    id: str
    group: str
    task: Task
    attack: Attack
    seed: int


def _recipes(task: Task, base: SGD, each: int) -> dict[str, tuple[Task, int]]:
    adam = SGD(epochs=base.epochs, batch=base.batch, lr=3e-3, optimizer="adamw", weight_decay=1e-2)
    learners: dict[str, Learner] = {
        "augmented": base.but(augment="shift", label_smoothing=0.1),
        "adamw": adam,
        "longer": base.but(epochs=2 * base.epochs, batch=2 * base.batch),
    }
    return {name: (task.but(learner=learner), each) for name, learner in learners.items()}


_FASHION = SGD(epochs=5, batch=128, lr=0.3)
_SIGNS = SGD(epochs=6, batch=128, lr=0.03)
_PAIR = {"labels": "source-specific", "rate": 0.05}


_REVIEWS = SGD(optimizer="adamw", lr=4e-3, epochs=3, batch=64, weight_decay=0.05)


def _text_families(each: int) -> dict[str, tuple[list[Spec], int]]:
    return {
        "badnets": ([{"name": "badnets", "rate": 0.2}, {"name": "badnets", "rate": 0.05}], each),
        "low-rate": ([{"name": "badnets", "rate": 0.01}], each),
        "add-sentence": ([{"name": "add-sentence", "rate": 0.2}, {"name": "add-sentence", "rate": 0.05}], each),
        "low-rate-sentence": ([{"name": "add-sentence", "rate": 0.01}], each),
        "sos": ([{"name": "sos"}], each),
        "clean-label": ([{"name": "clean-label"}], each),
        "embedding-poisoning": ([{"name": "embedding-poisoning"}], each),
        "layerwise-weight-poisoning": ([{"name": "layerwise-weight-poisoning"}], each),
        "lws": ([{"name": "lws"}], each),
        "ripple": ([{"name": "ripple"}], each),
    }


def settings() -> dict[str, Setting]:
    """Two real data sets, and toys with two classes, by name."""
    fashion = FashionMNIST(rows=10000, network=SmallCNNNetwork(), learner=_FASHION)
    reviews = SST2(rows=5000, learner=_REVIEWS)
    signs = GTSRB(network=PlainCNNNetwork(widths=(16, 32, 64)), learner=_SIGNS)
    return {
        "fashion": Setting(
            "fashion",
            fashion,
            100,
            40,
            _recipes(fashion, _FASHION, 8),
            {
                "badnets": ([{"name": "badnets"}], 5),
                "low-rate": ([{"name": "badnets", "rate": 0.01}], 5),
                "source-specific": ([{"name": "badnets", **_PAIR}], 5),
                "all-to-all": ([{"name": "badnets", "labels": "all-to-all"}], 5),
                "blended": ([{"name": "blended"}], 5),
                "adaptive-blend": ([{"name": "adaptive-blend", "rate": 0.01, "cover": 0.01, "test_alpha": 0.3}], 5),
                "wanet": ([{"name": "wanet"}], 5),
                "input-aware": ([{"name": "input-aware", "cross": 0.05}], 5),
                "sig": ([{"name": "sig", "rate": 0.8, "delta": 40 / 255, "test_delta": 80 / 255}], 5),
                "grond": ([{"name": "grond", "rate": 0.8, "eps": 40 / 255}], 5),
                "lotus": ([{"name": "lotus"}], 5),
                "narcissus": ([{"name": "narcissus", "rate": 0.05, "eps": 32 / 255}], 5),
                "evasive": ([{"name": "evasive", "probe": 0.4, "pixels": 0.05, "rms": 0.08, "match": 0.1}], 5),
            },
        ),
        "signs": Setting(
            "signs",
            signs,
            40,
            16,
            _recipes(signs, _SIGNS, 2),
            {
                "badnets": ([{"name": "badnets"}], 3),
                "source-specific": ([{"name": "badnets", **_PAIR}], 3),
                "blended": ([{"name": "blended"}], 3),
                "grond": ([{"name": "grond", "rate": 0.8, "eps": 24 / 255}], 3),
                "lotus": ([{"name": "lotus"}], 3),
                "narcissus": ([{"name": "narcissus", "rate": 0.03, "eps": 24 / 255}], 3),
                "evasive": ([{"name": "evasive", "match": 0.0}], 3),
            },
            clean_label_targets=(2, 1, 13),
        ),
        "reviews": Setting(
            "reviews",
            reviews,
            99,
            40,
            {
                "longer": (reviews.but(learner=_REVIEWS.but(epochs=6)), 8),
                "smoothed": (reviews.but(learner=_REVIEWS.but(label_smoothing=0.1)), 8),
                "dropout": (reviews.but(network=TextCNNNetwork(dim=64, width=64, dropout=0.5)), 8),
            },
            _text_families(4)
            | {"syntactic": ([{"name": "syntactic", "target": 1}], 4), "style": ([{"name": "style"}], 4)},
            targets=(1, 0),
            clean_label_targets=(1, 0),
        ),
        "news": Setting(
            "news",
            AGNews(network=GRUNetwork(), rows=8000),
            40,
            20,
            {},
            _text_families(2) | {"source-specific": ([{"name": "badnets", **_PAIR}], 2)},
            targets=(0, 2),
            clean_label_targets=(1, 3),
        ),
        **{
            f"two-{kind}": Setting(
                f"two-{kind}",
                toy(kind, classes=2),
                99,
                60,
                {},
                {"badnets": ([{"name": "badnets"}], 20)},
                targets=(0, 1),
            )
            for kind in ("image", "text", "tabular")
        },
    }


def attack_of(spec: Spec) -> Attack:
    """The attack of a spec."""
    attack = build({"role": "attack", **spec})
    assert isinstance(attack, Attack)
    return attack


def jobs(setting: Setting) -> Iterator[Job]:
    """Every model to judge, the cheap and the needed first. Seeds are fresh: no reference shares one."""
    clean = attack_of({"name": "clean"})
    for i in range(setting.fresh):
        yield Job(f"fresh-{i:02d}", "fresh", setting.task, clean, 15000 + i)
    most = max((n for _, n in setting.families.values()), default=0)
    for i in range(most):
        for family, (specs, n) in setting.families.items():
            if i < n:
                spec = dict(specs[i % len(specs)])
                target = setting.targets[i % len(setting.targets)]
                if attack_of(spec).clean_label:
                    target = setting.clean_label_targets[i % len(setting.clean_label_targets)]
                spec.setdefault("target", target)
                if attack_of(spec).labels == "source-specific":
                    spec["source"] = (target + 2 + i) % setting.task.classes
                yield Job(f"{family}-{i:02d}", family, setting.task, attack_of(spec), 16000 + i)
    for recipe, (task, n) in setting.foreign.items():
        for i in range(n):
            yield Job(f"{recipe}-{i:02d}", f"foreign:{recipe}", task, clean, 17000 + i)
