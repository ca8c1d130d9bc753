"""cross-split: what its networks know is told of rows that they did not learn; its two chances are binomial tails."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom

from torchbands.core.data import Data
from torchbands.defenses.data._crossing import Crossed, Knowledge, balanced, cross, halves, knowledge
from torchbands.defenses.data.cross_split import CrossSplit, verdict
from torchbands.learners.sgd import SGD
from torchbands.testing import toy


def known(**told: object) -> Knowledge:
    """A class of ten in two parts, as a trigger on relabelled rows shows it, but for what is told."""
    said = torch.tensor([1, 10, 9, 8, 8, 7, 7, 6, 3, 1])
    usual = {
        "sizes": (60, 100),
        "kin": (0.1, 0.1),
        "other": (3.0, 4.0),
        "kin_known": (57, 95),
        "other_known": (1, 5),
        "said": (said, torch.tensor([5, 95, 0, 0, 0, 0, 0, 0, 0, 0])),
        "strays": (torch.tensor([[0, 0], *[[1, 100]] * 9]), torch.tensor([[0, 0], *[[2, 50]] * 9])),
    }
    return Knowledge(**(usual | told))  # type: ignore[arg-type]


def test_the_two_chances_are_tails_of_what_is_not_poison() -> None:
    found = verdict(known(), 0, 6.0, turned=False)
    assert found["p_mark"] == pytest.approx(
        max(binom.sf(56, 60, 0.55), binom.sf(94, 100, 0.325), binom.cdf(9, 900, 0.3), binom.cdf(5, 100, 0.3)), rel=1e-6
    )
    assert found["p_relabelled"] == pytest.approx(
        max(binom.sf(56, 60, 0.55), binom.cdf(1, 60, 0.3), binom.cdf(10, 59, 0.5)), rel=1e-6
    )
    assert found["p_mark"] < 1e-7 and found["p_relabelled"] < 1e-6
    for kin, expected in (((40, 95), binom.sf(39, 60, 0.55)), ((57, 50), binom.sf(49, 100, 0.325))):
        assert verdict(known(kin_known=kin), 0, 6.0, turned=False)["p_mark"] == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("told", "mark", "relabelled"),
    [
        ({"kin_known": (20, 95)}, False, False),  # labels that are noise: fresh rows of the part are not known
        ({"strays": (torch.tensor([[0, 0], [90, 100]]), torch.zeros(2, 2))}, False, False),  # labels turned round
        ({"kin_known": (57, 20)}, False, False),  # nobody knows the natural rows either
        ({"other_known": (55, 5)}, True, False),  # a mark on rows that keep their label
        ({"other_known": (1, 60)}, False, True),  # relabelled rows, and the networks know the class without them
        ({"other_known": (55, 95)}, False, False),  # one kind of thing
        ({"said": (torch.tensor([1, 55, 4, 0, 0, 0, 0, 0, 0, 0]), torch.zeros(10))}, True, False),  # a second kind
    ],
)
def test_each_part_of_the_evidence_can_refuse(told: dict[str, object], mark: bool, relabelled: bool) -> None:
    found = verdict(known(**told), 0, 6.0, turned=False)
    assert (found["p_mark"] < 0.01, found["p_relabelled"] < 0.01) == (mark, relabelled)


def test_one_group_in_halves_and_few_classes_are_not_relabelled() -> None:
    assert verdict(known(), 0, 3.0, turned=False)["p_relabelled"] == 1.0
    three = known(said=(torch.tensor([1, 30, 29]), torch.tensor([5, 95, 0])))
    assert verdict(three, 0, 6.0, turned=False)["p_relabelled"] == 1.0


def test_turned_parts_change_places() -> None:
    told = known()
    parts = (told.sizes, told.kin, told.other, told.kin_known, told.other_known, told.said, told.strays)
    back = verdict(Knowledge(*(part[::-1] for part in parts)), 0, 6.0, turned=True)  # type: ignore[arg-type]
    straight = verdict(told, 0, 6.0, turned=False)
    assert back.pop("cross_entropies") == straight.pop("cross_entropies")[::-1] and back == straight


def test_excess_is_over_fresh_rows_of_the_part_that_was_learned() -> None:
    assert known().excess() == pytest.approx(3.9)
    assert known(kin=(0.1, 2.9)).excess() == pytest.approx(3.9)
    assert known(kin=(3.9, 2.9)).excess() == pytest.approx(0.1)
    assert known(kin=(9.0, 9.0)).excess() == pytest.approx(1e-3)  # nobody knows anything


def test_every_class_is_shown_alike_and_halved() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 300 + [1] * 7 + [3] * 40)
    at = balanced(torch.arange(347), y, (64, 200), rng)
    assert torch.bincount(y[at]).tolist() == [200, 200, 0, 200]
    assert len(at[y[at] == 0].unique()) == 200 and len(at[y[at] == 1].unique()) == 7
    half = halves(y, rng)
    assert torch.bincount(y[half == 0], minlength=4).tolist() == [150, 4, 0, 20]


def test_networks_are_asked_only_about_rows_that_they_did_not_learn() -> None:
    """Labels by a coin are learned by heart: rows that were learned would be known, and no fresh row is."""
    task, rng = toy("tabular"), torch.Generator().manual_seed(0)
    data = Data(task.load("train").x[:400], torch.randint(4, (400,), generator=rng))
    part = torch.randint(2, (400,), generator=rng)
    learner = SGD(epochs=25, batch=32, lr=1e-2, optimizer="adamw")
    crossed = cross(data, task.fresh(0), part, lambda rows: learner, 0)
    assert torch.allclose(crossed.kin.exp().sum(1), torch.ones(400), atol=1e-4)
    assert torch.allclose(crossed.other.exp().sum(1), torch.ones(400), atol=1e-4)
    for said in (crossed.kin, crossed.other):
        assert float((said.argmax(1) == data.y).float().mean()) < 0.4


def test_a_part_without_a_learner_is_known_to_nobody() -> None:
    task = toy("tabular")
    data = task.load("train")[:120]
    part = torch.arange(120) // 4 % 2
    crossed = cross(data, task.fresh(0), part, lambda rows: SGD(epochs=3, lr=1e30), 0)
    told = knowledge(crossed, data.y, part, 0)
    assert isinstance(crossed, Crossed) and told.other[0] == pytest.approx(math.log(4), abs=1e-4)


def test_labels_by_a_coin_name_no_class() -> None:
    """The index used to be of what nobody knows: on noise it named about every second data set."""
    task, named = toy("observation"), 0
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        data = Data(torch.rand(400, 8, generator=rng) * 2 - 1, torch.randint(4, (400,), generator=rng))
        found = CrossSplit().score(data, task.train(data, seed=seed), seed=seed)
        named += int(found.flagged.any())  # type: ignore[union-attr]
        for told in found.evidence["classes"].values():
            assert min(told["p_relabelled"], told["p_mark"]) > 0.01 / 8
    assert named <= 1


def test_labels_that_are_noise_are_no_mark_though_two_classes_turned_round_know_each_other() -> None:
    """Rows of either class with the other's label: their networks learn the world upside down, and know fresh ones."""
    task, rng = toy("tabular", classes=2), torch.Generator().manual_seed(0)
    clean = task.load("train")[:600]
    turned = torch.rand(600, generator=rng) < 0.2
    data = Data(clean.x, torch.where(turned, 1 - clean.y, clean.y))
    part = turned.long()
    told = knowledge(cross(data, task.fresh(0), part, CrossSplit().learner_for, 0), data.y, part, 0)
    assert told.kin_known[0] > 0.9 * told.sizes[0] and told.known(False) < 0.1
    found = verdict(told, 0, 6.0, turned=False)
    assert found["p_mark"] == 1.0 and found["others_taken_by_foreign"] > 0.9
