"""Known answers for the numbers that everything else is reported in."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from torchbands.core.attack import Victim
from torchbands.core.effect import effect
from torchbands.core.metric import Undefined, mean_interval, to_json
from torchbands.core.registry import build
from torchbands.measures.cost import measured
from torchbands.measures.effectiveness import (
    Effect,
    auroc,
    auroc_interval,
    decisions,
    der,
    histogram,
    ranking,
    ties,
    tpr_at,
)


def test_auroc_agrees_with_scikit_learn_with_ties() -> None:
    rng = torch.Generator().manual_seed(0)
    high, low = torch.randint(0, 6, (40,), generator=rng), torch.randint(-2, 4, (70,), generator=rng)
    truth = [1] * 40 + [0] * 70
    assert auroc(high, low) == pytest.approx(roc_auc_score(truth, torch.cat([high, low]).numpy()))


def test_ties_are_the_pairs_with_one_score() -> None:
    bad, good = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 1.0, 2.0, 2.0])
    assert ties(bad, good) == pytest.approx((1 + 2 + 2) / 12)
    assert ties(bad, good + 0.5) == 0.0 and ties(bad * 0, good * 0) == 1.0
    assert ranking(bad, good)["ties"] == ties(bad, good)
    assert isinstance(ties(bad, good[:0]), Undefined)


def test_auroc_of_decisions_is_not_the_auroc_of_scores() -> None:
    high, low = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.9, 0.5, 0.1])
    assert auroc(high, low) == 1.0
    assert auroc((high > 1.5).float(), (low > 1.5).float()) != 1.0


def test_auroc_without_rows_is_undefined() -> None:
    assert isinstance(auroc(torch.zeros(0), torch.ones(3)), Undefined)


def test_interval_of_a_perfect_auroc_is_not_empty() -> None:
    low, high = auroc_interval(1.0, 20, 20)
    assert 0.8 < low < 0.95 and high == pytest.approx(1.0)
    low, high = auroc_interval(0.5, 50, 50)
    assert low == pytest.approx(1 - high, abs=1e-6)


def test_tpr_at_keeps_false_alarms_at_or_under_the_budget() -> None:
    low = torch.arange(100.0)
    high = torch.tensor([93.5, 94.5, 200.0])
    caught = tpr_at(high, low, 0.05)
    assert caught == pytest.approx(2 / 3), "94.5 costs exactly 5 false alarms in 100, 93.5 would cost 6"
    assert isinstance(tpr_at(high, low[:50], 0.01), Undefined), "50 rows cannot show 1 %"


def test_der_subtracts_lost_accuracy() -> None:
    before = Effect(0.9, 1.0, 0.0)
    assert der(before, Effect(0.9, 1.0, 0.0)) == 0.5
    assert der(before, Effect(0.9, 0.0, 0.9)) == 1.0
    harmed = der(before, Effect(0.7, 0.0, 0.7))
    assert isinstance(harmed, float) and harmed == pytest.approx(0.9) and harmed < 1.0
    better = der(before, Effect(0.95, 0.0, 0.9))
    assert better == 1.0, "a gain in accuracy is not counted twice"


def test_decisions() -> None:
    flagged = torch.tensor([True, True, False, False])
    truth = torch.tensor([True, False, True, False])
    assert decisions(flagged, truth) == {"rule_recall": 0.5, "rule_fpr": 0.5, "rule_precision": 0.5}
    none = decisions(torch.zeros(4, dtype=torch.bool), truth)
    assert none["rule_recall"] == 0.0 and isinstance(none["rule_precision"], Undefined)


def test_histogram_counts_every_row_once() -> None:
    made = histogram(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0, 5.0]))
    assert sum(made["triggered"]) == 2 and sum(made["clean"]) == 3 and len(made["edges"]) == 21
    flat = histogram(torch.ones(3), torch.ones(4))
    assert sum(flat["triggered"]) == 3 and sum(flat["clean"]) == 4


def test_target_class_rows_never_count_towards_attack_success(clean_victim: Victim) -> None:
    test = clean_victim.task.load("test")
    triggered, wanted = clean_victim.triggered(test)
    assert (triggered.y != clean_victim.attack.target).all() and (wanted == clean_victim.attack.target).all()
    assert len(triggered) == int((test.y != clean_victim.attack.target).sum())


def test_effect_of_a_planted_and_a_clean_model(planted_victim: Victim, clean_victim: Victim) -> None:
    test = planted_victim.task.load("test")
    triggered, goal = planted_victim.stamped(test), planted_victim.goal
    planted = effect(planted_victim.model, test, triggered, goal)
    control = effect(clean_victim.model, test, triggered, goal)
    assert not isinstance(planted.asr, Undefined) and not isinstance(control.asr, Undefined)
    assert planted.asr > 0.95 and control.asr < 0.1
    assert not isinstance(planted.ra, Undefined) and planted.ra <= 1 - planted.asr


def test_label_rules_are_one_option(digits: object) -> None:
    y = torch.tensor([0, 1, 2, 9])
    attack = build("badnets", "attack")
    assert attack.relabel(y, 10).tolist() == [0, 0, 0, 0]  # type: ignore[attr-defined]
    assert attack.but(labels="all-to-all").relabel(y, 10).tolist() == [1, 2, 3, 0]
    assert attack.but(labels="source-specific", source=2).relabel(y, 10).tolist() == [0, 1, 0, 9]


def test_undefined_is_null_with_reason_and_never_nan() -> None:
    out = to_json({"a": 0.5, "b": Undefined("no rows"), "c": math.nan, "d": math.inf})
    assert out["a"] == 0.5 and out["b"] is None and out["c"] is None and out["d"] is None
    assert out["undefined"]["b"] == "no rows" and set(out["undefined"]) == {"b", "c", "d"}


def test_mean_interval() -> None:
    three = mean_interval([1.0, 2.0, 3.0])
    assert three is not None and three.mean == 2.0 and three.low == pytest.approx(2 - 2.4841, abs=1e-3)
    one = mean_interval([1.0])
    assert one is not None and one.low is None
    assert mean_interval([]) is None


def test_cost_counts_forward_passes_of_clones_too(clean_victim: Victim) -> None:
    rows = clean_victim.task.load("test")[:50]
    with measured(clean_victim.model) as cost:
        clean_victim.model.logits(rows.x)
        clean_victim.model.clone().logits(rows.x)
    assert cost.forward_passes == 100 and cost.seconds > 0


def test_a_shared_pass_costs_each_of_its_users_the_same_whoever_comes_first(clean_victim: Victim) -> None:
    model, rows = clean_victim.model, clean_victim.task.load("train")[:600]
    spent = model.passes.forward
    assert model.head is not None
    with measured(model) as whole, model.shared():
        told = []
        for _ in range(2):
            with measured(model) as cost:
                model.outputs(rows.x)
                model.logits(rows.x)  # once a user, not once a call
            told.append(cost)
    assert [c.forward_passes for c in told] == [600, 600] and model.passes.forward == spent + 600
    assert whole.forward_passes == 600, "what holds both users made the pass once"
    with model.shared(), model.passes.user() as first:
        model.outputs(rows.x)
        with model.passes.user() as second, measured(model) as cost:
            model.outputs(rows.x)
    assert first.seconds == first.cpu_seconds == 0.0, "who makes the pass has spent the time"
    assert cost.seconds > second.seconds > 0 and cost.cpu_seconds > second.cpu_seconds > 0


def test_a_measured_block_does_not_lose_the_peak_of_the_one_around_it() -> None:
    with measured() as outer:
        held = torch.ones(40_000_000)
        del held
        with measured() as inner:
            pass
    if isinstance(outer.peak_mb, float) and isinstance(inner.peak_mb, float):
        assert outer.peak_mb >= inner.peak_mb + 100
