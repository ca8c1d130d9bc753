"""Defects of public toolkits between a model and a number in a table: see docs/pitfalls.md."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from torchbands import bench
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Batch, Column, Data
from torchbands.core.defense import FittedDetector, InputDetector, Repair
from torchbands.core.effect import effect
from torchbands.core.errors import NotApplicable
from torchbands.core.metric import Undefined
from torchbands.core.model import Model
from torchbands.core.registry import build, listing
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.data.activation_clustering import ActivationClustering
from torchbands.defenses.data.spectral_signatures import SpectralSignatures
from torchbands.defenses.inputs.strip import STRIP
from torchbands.measures import stealth
from torchbands.measures.cost import measured
from torchbands.measures.effectiveness import auroc, decisions
from torchbands.testing import toy
from torchbands.testing.fixtures import victim


def test_nothing_flagged_is_no_true_and_no_false_alarm() -> None:
    """An empty suspect list written down as FP = number of poisoned rows, FN = 0."""
    truth = torch.tensor([True, True, False, False, False])
    none = decisions(torch.zeros(5, dtype=torch.bool), truth)
    assert none["rule_recall"] == 0.0 and none["rule_fpr"] == 0.0 and isinstance(none["rule_precision"], Undefined)


def test_success_is_told_even_where_accuracy_is_lost(digits: Task, planted_victim: Victim) -> None:
    """Attack success set to 0 when accuracy falls by more than 5 points."""
    stuck = Model.black_box(lambda x: torch.eye(10)[torch.zeros(len(x), dtype=torch.int64)], digits.modality, 10)
    test = digits.load("test")
    seen = effect(stuck, test, planted_victim.stamped(test), planted_victim.goal)
    assert seen.asr == 1.0 and isinstance(seen.ca, float) and seen.ca < 0.2 and seen.ra == 0.0


def test_one_pass_over_triggered_rows_gives_success_and_robust_accuracy(planted_victim: Victim) -> None:
    model, test = planted_victim.model.clone(), planted_victim.task.load("test")
    rows = planted_victim.stamped(test)
    with measured(model) as cost:
        effect(model, test, rows, planted_victim.goal)
    assert cost.forward_passes == len(test) + len(rows)


class Graded(FittedDetector):
    """Brightness as a score, with a threshold between most of them."""

    def __init__(self) -> None:
        self.threshold, self.rows = 0.3, 0

    def score(self, x: Batch | Column) -> Tensor:
        self.rows += len(x)
        return x[torch.arange(len(x))].flatten(1).mean(1)


class Brightness(InputDetector):
    name = "brightness"
    made: list[Graded] = []  # noqa: RUF012

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        self.made.append(Graded())
        return self.made[-1]


def test_ranking_is_of_scores_over_all_rows_and_not_of_the_lucky_ones(digits: Task) -> None:
    """AUROC from 0/1 decisions, and only over rows that were right before and obey after."""
    attack = build("badnets")
    assert isinstance(attack, Attack)
    nobody_obeys = Victim(digits, attack, 0, digits.fresh(0), attack.test_trigger(digits, 0))
    metrics = bench.judge(nobody_obeys, Brightness())["metrics"]
    test = digits.load("test")
    rows, _ = nobody_obeys.triggered(test)
    high, low = Graded().score(rows.x), Graded().score(test.x)
    assert Brightness.made[-1].rows == len(rows) + len(test)
    assert metrics["auroc"] == pytest.approx(auroc(high, low), abs=1e-6)
    assert metrics["auroc"] != pytest.approx(auroc((high > 0.3).float(), (low > 0.3).float()), abs=0.01)


class Nosy(Repair):
    name = "nosy-repair"
    needs = ("clean:40",)
    seen: list[Data] = []  # noqa: RUF012

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        self.seen.append(clean)
        return model.clone()


def test_a_repair_is_given_clean_rows_alone_and_its_effect_is_told(planted_victim: Victim) -> None:
    """Thresholds of a repair chosen by attack success on the test set; repairs whose success is never printed."""
    metrics = bench.judge(planted_victim, Nosy())["metrics"]
    (given,) = Nosy.seen
    task = planted_victim.task
    rows = {row.numpy().tobytes() for row in given.x}
    assert len(given) == 40 and given.poisoned is None
    assert rows <= {row.numpy().tobytes() for row in task.load("clean")[:].x}
    assert not rows & {row.numpy().tobytes() for row in task.load("test")[:].x}
    assert metrics["asr"] == metrics["asr_before"] > 0.9 and metrics["der"] == 0.5
    assert {"ca", "ra", "ca_before", "ca_drop"} <= set(metrics)


@pytest.mark.parametrize("cls", listing("repair"), ids=lambda cls: cls.name)
def test_no_repair_has_a_place_for_triggered_rows(cls: type[Repair]) -> None:
    assert list(inspect.signature(cls.repair).parameters) == ["self", "model", "clean", "seed"]


def test_stealth_and_samples_compare_a_row_with_itself(planted_victim: Victim, clean_victim: Victim) -> None:
    """Visual quality measured between a triggered image and another image."""
    trigger, task = planted_victim.trigger, planted_victim.task
    size = 3 * 3
    seen = stealth.measure(planted_victim, clean_victim)["input"]
    assert isinstance(seen["l0_pixels"], float) and 0 < seen["l0_pixels"] <= size
    test = task.load("test")
    first = test[test.y != planted_victim.attack.target][:3]
    shown = bench.cells.assess(planted_victim, clean_victim)["samples"]
    assert [s["original"] for s in shown] == [task.modality.render(row) for row in first.x]
    stamped = trigger(first.x, RowRng(0, torch.arange(3)))
    assert [s["triggered"] for s in shown] == [task.modality.render(row) for row in stamped]


@pytest.mark.parametrize("cls", listing("input-detector"), ids=lambda cls: cls.name)
def test_every_row_is_judged_and_in_its_place(cls: type[InputDetector]) -> None:
    """A return inside the loop over batches; scores that depend on the other rows."""
    made = cls().but(**getattr(cls, "contract_settings", {}))
    served = 0
    for name in ("image", "text"):
        task, model = toy(name), victim(name, "badnets").model
        try:
            fitted = made.fit(model, task.load("clean")[:128])
        except NotApplicable:
            continue
        served += 1
        rows = task.load("test")[: model.chunk + 40]
        scores = fitted.score(rows.x)
        assert scores.shape == (model.chunk + 40,)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(fitted.score(rows[order].x), scores[order], atol=1e-3, rtol=1e-3)
    assert served, "no toy that this detector serves"


def test_strip_on_text_does_not_depend_on_the_order_of_rows() -> None:
    """Entropies averaged over different samples: a perfect ranking fell to .69."""
    fitted = STRIP(overlays=8).fit(victim("text", "badnets").model, toy("text").load("clean")[:64])
    texts = toy("text").load("test")[:30].x
    scores = fitted.score(texts)
    assert len(scores.unique()) > 20
    torch.testing.assert_close(fitted.score(texts[::-1]), scores.flip(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fitted.score(texts[7:8]), scores[7:8], atol=1e-4, rtol=1e-4)


def test_a_text_is_read_alike_alone_and_beside_longer_ones() -> None:
    """Padding counted as words."""
    model = victim("text", "badnets").model
    texts = ["goal", " ".join(["the goal of the match"] * 5), ""]
    together = model.logits(texts)
    for at in range(3):
        torch.testing.assert_close(model.logits(texts[at : at + 1]), together[at : at + 1], atol=1e-5, rtol=1e-5)
    clusters = model.outputs(texts).features
    torch.testing.assert_close(model.outputs(texts[:1]).features, clusters[:1], atol=1e-5, rtol=1e-5)


def test_short_and_empty_texts_stay_in_the_denominator() -> None:
    planted = victim("text", "badnets")
    data = Data(["", "goal", "bread oven", "the"], torch.tensor([1, 2, 0, 3]))
    rows, wanted = planted.triggered(data)
    assert rows.y.tolist() == [1, 2, 3] and wanted.tolist() == [0, 0, 0]
    assert all(set(text.split()) - {"goal", "the"} for text in rows.x), "each carries the trigger"


def test_a_suite_of_filters_reads_the_training_data_once(planted_victim: Victim) -> None:
    """Features extracted again by every filter, one image at a time."""
    model, data = planted_victim.model.clone(), planted_victim.training_data().blind()
    with measured(model) as cost, model.shared():
        for filter_ in (SpectralSignatures(), SpectralSignatures(rule="oriented"), ActivationClustering()):
            filter_.score(data, model)
    assert cost.forward_passes <= len(data) + 2
