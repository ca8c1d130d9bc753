"""`scan_data`: poison is found within the budget, unpoisoned data is left alone, and every row is accounted for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.defense import Suspicion
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.modalities.image import Image
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.outcome import Outcome
from torchbands.scanner.ranking import rank
from torchbands.scanner.rows import Rows
from torchbands.testing import toy


@pytest.fixture(scope="module")
def poisoned(digits: Task) -> tuple[Rows, torch.Tensor]:
    """Digits with BadNets in 5 % of the rows, and the truth."""
    attack = build("badnets", "attack").but(rate=0.05)
    assert isinstance(attack, Attack)
    data = attack.poison(digits.load("train"), digits, 0)
    assert data.poisoned is not None
    return Rows(data.blind(), digits.modality, tuple(digits.class_names), "contributed", task=digits), data.poisoned


@pytest.fixture(scope="module")
def scanned(
    poisoned: tuple[Rows, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Outcome, Path]]:
    folder = tmp_path_factory.mktemp("scan")
    yield scan_data(poisoned[0], folder=folder), folder


def test_poison_is_found_within_the_budget(scanned: tuple[Outcome, Path], poisoned: tuple[Rows, torch.Tensor]) -> None:
    outcome, folder = scanned
    truth = poisoned[1]
    assert outcome.verdict == "indicated" and outcome.exit_code() == 1 and outcome.target == "0"
    assert [(a.rule, a.subject) for a in outcome.alerts] == [("BD-DAT-01", "0")]
    lines = list(csv.DictReader((folder / "scores.csv").open()))
    flagged = torch.zeros(len(truth), dtype=torch.bool)
    flagged[torch.tensor([int(line["id"]) for line in lines if line["flagged"] == "1"])] = True
    assert float(flagged[truth].float().mean()) > 0.95
    assert float(flagged[~truth].float().mean()) <= 0.015
    assert set(outcome.alerts[0].facts["worst"]) <= {str(i) for i in truth.nonzero().flatten().tolist()}


def test_every_row_is_in_the_tables(scanned: tuple[Outcome, Path], poisoned: tuple[Rows, torch.Tensor]) -> None:
    outcome, folder = scanned
    rows = poisoned[0]
    lines = list(csv.DictReader((folder / "scores.csv").open()))
    assert list(lines[0]) == ["id", "label", *outcome.methods, "combined", "p", "flagged"]
    assert sorted(int(line["id"]) for line in lines) == list(range(len(rows)))
    combined = [float(line["combined"]) for line in lines]
    assert combined == sorted(combined, reverse=True)
    kept = (folder / "cleaned.txt").read_text().split()
    assert kept == [line["id"] for line in csv.DictReader((folder / "cleaned.csv").open())]
    assert set(kept) == {line["id"] for line in lines if line["flagged"] == "0"}
    assert sorted(p.name for p in folder.iterdir()) == ["cleaned.csv", "cleaned.txt", "scores.csv"]


def test_the_outcome_explains_itself(scanned: tuple[Outcome, Path]) -> None:
    outcome, _ = scanned
    assert outcome.methods == ("activation-clustering", "spectral-signatures", "cross-split")
    assert [line.view for line in outcome.ledger] == list(outcome.methods)
    assert len(outcome.pictures) == 12 and all("<img" in p.html for p in outcome.pictures)
    made = outcome.to_json()
    assert json.loads(json.dumps(made))["calibration"]["level"] == 0.01
    assert outcome.subject.kind == "data" and len(outcome.subject.sha256) == 64


def test_unpoisoned_data_is_left_alone(digits: Task) -> None:
    rows = Rows(digits.load("train").blind(), digits.modality, tuple(digits.class_names), "own", task=digits)
    outcome = scan_data(rows, false_alarms=0.02)
    assert outcome.verdict == "none" and outcome.exit_code() == 0 and outcome.alerts == ()
    assert outcome.calibration["flagged"] <= 0.02 * len(rows)
    assert "clean" not in outcome.sentence() and "safe" not in outcome.sentence()


def test_a_given_model_and_trusted_rows_are_used(poisoned: tuple[Rows, torch.Tensor], digits: Task) -> None:
    rows = poisoned[0]
    model = digits.train(rows.data, seed=1)
    outcome = scan_data(rows, model=model, clean=digits.load("clean")[:], profile="fast")
    assert outcome.methods == (
        "activation-clustering",
        "spectral-signatures",
        "statistical-contamination",
        "cross-split",
    )
    assert outcome.calibration["model"] == "the model given" and outcome.verdict == "indicated"
    box = Model.black_box(model.probabilities, digits.modality, 10)
    assert "black box" in scan_data(rows, model=box, profile="fast").calibration["model"]
    with pytest.raises(InputError, match="4 classes"):
        scan_data(rows, model=toy("image").fresh(0))


def test_two_classes_and_other_samples_are_ranked() -> None:
    for name in ("image", "text", "tabular"):
        task = toy(name, classes=2)
        data = task.load("train")[:400]
        rows = Rows(data, task.modality, ("a", "b"), name)
        outcome = scan_data(rows, profile="fast")
        assert outcome.verdict in ("none", "indicated") and len(outcome.ledger) == 3 + (name == "text")
        assert "trained here" in outcome.calibration["model"]


def test_too_little_is_inconclusive() -> None:
    x = torch.rand(90, 1, 8, 8)
    rows = Rows(Data(x, torch.arange(90) % 2), Image(channels=1, size=8), ("a", "b"), "few")
    outcome = scan_data(rows)
    assert outcome.verdict == "inconclusive" and outcome.exit_code() == 3 and "90 rows" in outcome.sentence()
    lone = Data(torch.rand(200, 1, 8, 8), torch.cat([torch.zeros(195), torch.ones(5)]).long())
    assert "1 class" in scan_data(Rows(lone, Image(channels=1, size=8), ("a", "b"), "lone")).reasons[0]
    for wrong in ({"false_alarms": 0.0}, {"false_alarms": 0.7}, {"profile": "slow"}):
        with pytest.raises(InputError):
            scan_data(rows, **wrong)  # type: ignore[arg-type]


def test_rank_by_hand() -> None:
    y = torch.tensor([0] * 100 + [1] * 50)
    rng = torch.Generator().manual_seed(0)
    scores = torch.rand(150, generator=rng)
    scores[:10] += 50  # ten rows of class 0 lie apart
    foreign = torch.zeros(150, dtype=torch.bool)
    foreign[:10] = True
    classes = {"0": {"index": 20.0}, "1": {"index": 3.0}}
    split = Suspicion(scores, foreign, {"classes": classes, "cutoff": 10.0})
    ranking = rank(y, {"cross-split": split}, 0.02)
    assert ranking.split == (0,)
    assert bool(ranking.flagged[:10].all()) and int(ranking.flagged[10:100].sum()) == 1  # 2 % of 90 rows
    assert int(ranking.flagged[100:].sum()) == 1  # 2 % of 50 rows
    assert ranking.combined.argsort(descending=True)[:10].sort().values.tolist() == list(range(10))
    assert float(ranking.p[:10].max()) == 0.0 and float(ranking.p[10:100].min()) == pytest.approx(1 / 90)
    assert ranking.p_excess < 1e-4
    quiet = Suspicion(scores, torch.zeros(150, dtype=torch.bool), {"classes": classes, "cutoff": 30.0})
    assert rank(y, {"cross-split": quiet}, 0.02).p_excess == 1.0
