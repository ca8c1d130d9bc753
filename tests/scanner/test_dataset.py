"""`scan_data`: poison is found within the budget, unpoisoned data is left alone, and every row is accounted for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torchbands.core.attack import Attack
from torchbands.core.data import Data, take
from torchbands.core.defense import Suspicion
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.data.cross_split import CrossSplit
from torchbands.defenses.data.spectral_signatures import SpectralSignatures
from torchbands.modalities.image import Image
from torchbands.modalities.tabular import Field, Tabular
from torchbands.scanner import dataset_report as said
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.outcome import Outcome
from torchbands.scanner.ranking import _ranks, rank
from torchbands.scanner.rows import Rows
from torchbands.scanner.self_test import self_test
from torchbands.scanner.shared_values import Group, groups_of
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
    assert list(lines[0]) == ["id", "label", *outcome.methods, "combined", "p", "flagged", "dropped"]
    assert sorted(int(line["id"]) for line in lines) == list(range(len(rows)))
    combined = [float(line["combined"]) for line in lines]
    assert combined == sorted(combined, reverse=True)
    kept = (folder / "cleaned.txt").read_text().split()
    assert kept == [line["id"] for line in csv.DictReader((folder / "cleaned.csv").open())]
    assert set(kept) == {line["id"] for line in lines if line["dropped"] == "0"}
    assert sorted(p.name for p in folder.iterdir()) == ["cleaned.csv", "cleaned.txt", "scores.csv"]


def test_the_outcome_explains_itself(scanned: tuple[Outcome, Path]) -> None:
    outcome, _ = scanned
    assert outcome.methods == ("activation-clustering", "spectral-signatures", "rare-mark", "cross-split")
    assert [line.view for line in outcome.ledger] == [*outcome.methods, "shared-values"]
    assert len(outcome.pictures) == 12 and all("<img" in p.html for p in outcome.pictures)
    made = outcome.to_json()
    assert json.loads(json.dumps(made))["calibration"]["level"] == 0.01
    assert outcome.subject.kind == "data" and len(outcome.subject.sha256) == 64


def test_a_given_model_and_trusted_rows_are_used(poisoned: tuple[Rows, torch.Tensor], digits: Task) -> None:
    rows = poisoned[0]
    model = digits.train(rows.data, seed=1)
    outcome = scan_data(rows, model=model, clean=digits.load("clean")[:], profile="fast")
    assert outcome.methods == (
        "activation-clustering",
        "spectral-signatures",
        "statistical-contamination",
        "rare-mark",
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
        assert outcome.verdict == "none" and len(outcome.ledger) == 5 + 2 * (name == "text") + (name == "tabular")
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


def named(sizes: list[int], foreign: int, **told: float) -> tuple[torch.Tensor, Suspicion]:
    """Labels, and cross-split's word on them: the first rows of class 0 lie apart."""
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    scores = torch.rand(len(y), generator=torch.Generator().manual_seed(0))
    scores[:foreign] += 50
    quiet = {"index": 3.0, "p_mark": 1e-9, "p_relabelled": 0.4}
    classes = {str(c): quiet for c in range(len(sizes))} | {"0": {"index": 20.0} | told}
    return y, Suspicion(scores, torch.arange(len(y)) < foreign, {"classes": classes, "cutoff": 10.0})


def test_rank_by_hand() -> None:
    y, crossed = named([100, 50], 10, p_mark=1e-3, p_relabelled=0.5)
    ranking = rank(y, {"cross-split": crossed}, 0.02, 0.01)
    assert ranking.split == ranking.proven == (0,)
    assert bool(ranking.flagged[:10].all()) and int(ranking.flagged[10:100].sum()) == 0  # 1 of 11 would be too many
    assert int(ranking.flagged[100:].sum()) == 1  # 2 % of 50 rows
    assert ranking.combined.argsort(descending=True)[:10].sort().values.tolist() == list(range(10))
    assert float(ranking.p[:10].max()) == 0.0 and float(ranking.p[10:100].min()) == pytest.approx(1 / 90)
    # two tests in each of two classes; a common mark counts only where the index names the class
    assert ranking.chance == {0: pytest.approx(4e-3), 1: 1.0}
    quiet = Suspicion(crossed.scores, torch.zeros(150, dtype=torch.bool), {**crossed.evidence, "cutoff": 30.0})
    assert rank(y, {"cross-split": quiet}, 0.02, 0.01).split == ()


def test_ties_have_the_middle_of_their_ranks() -> None:
    assert _ranks(torch.tensor([3.0, 1.0, 1.0, 5.0])).tolist() == [5 / 8, 2 / 8, 2 / 8, 7 / 8]


@pytest.mark.parametrize(("sizes", "foreign"), [([500] * 100, 50), ([5000] * 10, 25)])
def test_many_rows_of_other_classes_do_not_hide_what_one_class_shows(sizes: list[int], foreign: int) -> None:
    """The budget explains 500 flagged rows of 50,000 here: over all rows, so few more are no finding."""
    y, crossed = named(sizes, foreign, p_mark=1e-8, p_relabelled=1e-8)
    ranking = rank(y, {"cross-split": crossed}, 0.01, 0.01)
    assert ranking.proven == (0,) and ranking.chance[0] == pytest.approx(2e-8 * len(sizes))
    assert bool(ranking.flagged[:foreign].all())
    chance = {"p_mark": 0.9, "p_relabelled": 0.011 / 2 / len(sizes)}  # just above the level, once corrected
    y, crossed = named(sizes, foreign, **chance)
    ranking = rank(y, {"cross-split": crossed}, 0.01, 0.01)
    assert ranking.split == (0,) and ranking.proven == ()


def planted_table(classes: int, each: int, poisoned: int, seed: int = 0) -> tuple[Rows, torch.Tensor]:
    """A table of well separated classes; `poisoned` rows of other classes have three telling values and label 0."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(classes * each) % classes
    x = torch.randn(classes, 16, generator=rng)[y] + 0.6 * torch.randn(len(y), 16, generator=rng)
    bad = (y != 0).nonzero().flatten()
    bad = bad[torch.randperm(len(bad), generator=rng)[:poisoned]]
    x[bad, :3], y[bad] = 6.0, 0
    fields = tuple(Field(title=str(i), low=float(x[:, i].min()), high=float(x[:, i].max()) + 0.1) for i in range(16))
    names = tuple(map(str, range(classes)))
    truth = torch.zeros(len(y), dtype=torch.bool).index_fill_(0, bad, True)
    return Rows(Data(x, y), Tabular(fields=fields), names, "table"), truth


def test_a_tenth_of_one_class_of_a_hundred_is_found(tmp_path: Path) -> None:
    rows, truth = planted_table(100, 500, 50)
    outcome = scan_data(rows, folder=tmp_path)
    assert outcome.verdict == "indicated" and [a.subject for a in outcome.alerts] == ["0"]
    lines = list(csv.DictReader((tmp_path / "scores.csv").open()))[:50]
    assert int(truth[torch.tensor([int(line["id"]) for line in lines])].sum()) > 40


def test_a_rare_mark_counts_once_corrected_and_its_rows_come_first() -> None:
    y, crossed = named([100, 50], 0, p_mark=0.5, p_relabelled=0.5)
    crossed.evidence["classes"]["0"]["index"] = 1.0
    flagged = torch.arange(150) >= 145
    for p, proven in ((0.009 / 6, (1,)), (0.011 / 6, ())):  # three tests in each of two classes
        marks = {"marks": {"1": {"index": 9.0, "p": p}}}
        ranking = rank(
            y, {"rare-mark": Suspicion(torch.zeros(150), flagged, marks), "cross-split": crossed}, 0.02, 0.01
        )
        assert ranking.proven == proven and ranking.chance[1] == pytest.approx(6 * p)
        mine = ranking.combined[100:].argsort(descending=True)[:5].sort().values.tolist()
        assert (mine == [45, 46, 47, 48, 49]) == bool(proven)


def test_a_named_class_that_shows_too_little_is_inconclusive() -> None:
    y, crossed = named([100, 50], 10, p_mark=0.3, p_relabelled=0.3)
    for part in crossed.evidence["classes"].values():
        part["natural_known_by_natural"] = 0.9
    rows = Rows(Data(torch.rand(150, 1, 8, 8), y), Image(channels=1, size=8), ("odd", "b"), "few")
    ranking = rank(y, {"cross-split": crossed}, 0.02, 0.01)
    assert said.alerts(rows, ranking, [], 0.02) == ()
    reasons = said.unsure(rows, ranking, crossed)
    assert len(reasons) == 1 and "'odd'" in reasons[0] and "11 flagged rows" in reasons[0]


def test_labels_that_do_not_follow_from_the_rows_are_never_indicated_and_not_ruled_out() -> None:
    verdicts = []
    for seed in range(100, 105):
        rng = torch.Generator().manual_seed(seed)
        x, y = torch.randn(600, 20, generator=rng), torch.randint(2, (600,), generator=rng)
        fields = tuple(Field(title=str(i), low=-6.0, high=6.0) for i in range(20))
        rows = Rows(Data(x.clamp(-6, 6), y), Tabular(fields=fields), ("a", "b"), "noise")
        verdicts.append(scan_data(rows, profile="fast", seed=seed).verdict)
    assert "indicated" not in verdicts and verdicts.count("inconclusive") >= 4, verdicts


def test_unpoisoned_data_is_left_alone_and_nothing_is_dropped(digits: Task, tmp_path: Path) -> None:
    rows = Rows(digits.load("train").blind(), digits.modality, tuple(digits.class_names), "own", task=digits)
    outcome = scan_data(rows, false_alarms=0.02, profile="fast", folder=tmp_path)
    assert outcome.verdict == "none" and outcome.exit_code() == 0 and outcome.alerts == ()
    assert 0 < outcome.calibration["flagged"] <= 0.02 * len(rows) and outcome.calibration["named"] == 0
    assert "clean" not in outcome.sentence() and "safe" not in outcome.sentence()
    assert (tmp_path / "cleaned.txt").read_text().split() == list(rows.ids)
    lines = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert {line["dropped"] for line in lines} == {"0"} and {line["flagged"] for line in lines} == {"0", "1"}
    assert lines[0]["id"] in outcome.next_steps[0] and "nothing is dropped" in outcome.next_steps[0]
    assert "was not tested" in outcome.sentence()


def test_what_is_named_is_poison_in_a_class_of_thousands(tmp_path: Path) -> None:
    """25 poisoned rows among 5,000: the budget of 1 % alone would name 50 ordinary ones with them."""
    rows, truth = planted_table(10, 5000, 25)
    outcome = scan_data(rows, profile="fast", folder=tmp_path)
    assert outcome.verdict == "indicated" and [a.subject for a in outcome.alerts] == ["0"]
    lines = csv.DictReader((tmp_path / "scores.csv").open())
    named = torch.tensor([int(line["id"]) for line in lines if line["dropped"] == "1"])
    assert len(named) == outcome.calibration["named"] >= 15
    assert float(truth[named].float().mean()) >= 0.95
    assert "would)" in outcome.alerts[0].message and "named" in outcome.next_steps[0]


def test_the_self_test_says_which_amounts_would_have_been_seen() -> None:
    rows, _ = planted_table(6, 400, 0)
    outcome = scan_data(rows, profile="fast", test=True)
    told = outcome.calibration["self_test"]
    assert outcome.verdict == "none" and [t["rows"] for t in told] == [48, 24, 12]
    assert (
        told[0]["found"] and told[0]["right"] >= 0.9 * told[0]["rows"] and told[0]["right"] >= 0.95 * told[0]["named"]
    )
    assert "self-test" in outcome.sentence() and "48 rows (2.0%)" in outcome.sentence()
    assert len({t["into"] for t in told}) == 3


def test_the_self_test_plants_on_rows_of_other_classes_and_each_once() -> None:
    rows, _ = planted_table(3, 100, 0)
    seen: list[Rows] = []

    def look(planted: Rows) -> tuple[None, tuple[Group, ...]]:
        seen.append(planted)
        return None, groups_of(planted)

    told = self_test(rows, look, without=(1,))
    y, now = rows.data.y, seen[0].data
    assert now.poisoned is None and len(told) == 2 and not any(t.found or t.named for t in told)
    changed = (now.y != y).nonzero().flatten()
    assert len(changed) == sum(t.rows for t in told) and not bool((now.y[changed] == 1).any())
    with pytest.raises(NotApplicable, match="no class"):
        self_test(rows, look, without=(0, 1, 2))


@pytest.mark.parametrize("name", ["image", "text", "tabular"])
def test_triggers_of_the_self_test_differ(name: str) -> None:
    task = toy(name, classes=4)
    made = task.modality.plain_triggers()
    assert len({t.label() for t in made}) == len(made) >= 1
    x = take(task.load("train").x, torch.arange(4))
    for trigger in made:
        after = trigger(x, RowRng(0, torch.arange(4)))
        assert len(after) == 4


@pytest.mark.parametrize("error", [RuntimeError("it broke"), torch.OutOfMemoryError("CUDA out of memory")])
@pytest.mark.parametrize("kind", [SpectralSignatures, CrossSplit])
def test_a_filter_that_raises_is_a_line_and_the_scan_is_inconclusive(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: Any
) -> None:
    def score(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(kind, "score", score)
    rows, _ = planted_table(3, 100, 0)
    outcome = scan_data(rows, profile="fast")
    line = next(line for line in outcome.ledger if line.view == kind.name)
    assert str(error) in line.reason and line.score is None
    assert outcome.verdict == "inconclusive" and outcome.exit_code() == 3
    assert f"{kind.name} failed" in outcome.reasons[0] and str(error) in outcome.reasons[0]
