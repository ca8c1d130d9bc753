"""Tables: a category that one class alone has is shown and not accused; relabelled rows still are."""

from __future__ import annotations

import pytest
import torch
from benchmarks.scanner.null import FAMILIES

from torchbands.core.data import Data
from torchbands.core.defense import Suspicion
from torchbands.modalities.tabular import Field, Tabular
from torchbands.scanner import dataset_report as said
from torchbands.scanner.dataset import scan_data
from torchbands.scanner.feature_model import model_for
from torchbands.scanner.ranking import rank
from torchbands.scanner.rows import Rows
from torchbands.scanner.without_mark import Unmarked, mark_columns, unmarked

EXCLUSIVE = [name for name in FAMILIES if "a category of one class" in name]


def drawn(family: str, seed: int) -> Rows:
    x, y, modality = FAMILIES[family](torch.Generator().manual_seed(seed))
    return Rows(Data(x, y), modality, tuple(map(str, range(int(y.max()) + 1))), "deck.csv")


@pytest.mark.parametrize("family", EXCLUSIVE)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_category_of_one_class_is_never_accused(family: str, seed: int) -> None:
    outcome = scan_data(drawn(family, seed), seed=seed, profile="fast")
    assert outcome.verdict != "indicated" and outcome.alerts == ()


def marked(classes: int, relabelled: bool, seed: int = 0) -> tuple[Rows, torch.Tensor]:
    """60 rows of class 0 hold two telling values; they were of other classes, or always of this one."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(900) % classes
    x = 2 * torch.randn(classes, 8, generator=rng)[y] + torch.randn(900, 8, generator=rng)
    held = ((y != 0) if relabelled else (y == 0)).nonzero().flatten()[:60]
    x[held, :2], y[held] = 9.0, 0
    fields = tuple(Field(title=f"f{i}", low=-30.0, high=30.0) for i in range(8))
    truth = torch.zeros(900, dtype=torch.bool).index_fill_(0, held, True)
    return Rows(Data(x, y), Tabular(fields=fields), tuple("abcd"[:classes]), "deck.csv"), truth


@pytest.mark.parametrize("classes", [2, 4])
def test_rows_that_were_relabelled_lose_their_label_without_the_mark_and_others_keep_it(classes: int) -> None:
    for relabelled in (True, False):
        rows, truth = marked(classes, relabelled)
        model, _ = model_for(rows, None, 0)
        told = unmarked(rows.data, model, truth, [0])[0]
        assert told.columns == (0, 1) and told.tried == 60
        assert (told.p <= 1e-6) == relabelled and (told.changed >= 45) == relabelled


def test_the_outcome_names_the_columns_and_says_what_became_of_the_labels() -> None:
    rows, _ = marked(4, True)
    outcome = scan_data(rows, profile="fast")
    assert outcome.verdict == "indicated" and "'f0', 'f1'" in outcome.alerts[0].message
    assert "get another label" in outcome.alerts[0].message


def test_a_class_that_keeps_its_labels_is_not_proven_whatever_the_other_tests_say() -> None:
    rows, truth = marked(2, False)
    told = {"index": 20.0, "p_mark": 1e-9, "p_relabelled": 1.0, "natural_known_by_natural": 1.0}
    crossed = Suspicion(truth.float() * 50, truth, {"classes": {"0": told}, "cutoff": 12.0})
    assert rank(rows.data.y, {"cross-split": crossed}, 0.01, 0.01).proven == (0,)
    ranking = rank(rows.data.y, {"cross-split": crossed}, 0.01, 0.01, without={0: 0.02})
    assert (ranking.split, ranking.proven, int(ranking.named.sum())) == ((0,), (), 0)
    kept = Unmarked(0, (0, 1), 60, 2, 0.02)
    (reason,) = said.unsure(rows, ranking, crossed, without={0: kept})
    assert "58 of 60 keep their label" in reason and "'f0', 'f1'" in reason
    line = said.unmarked(rows, {0: kept})
    assert line.facts["classes"][0]["columns"] == ["f0", "f1"] and line.score == pytest.approx(2 / 60)


def test_columns_of_a_mark_differ_from_both_the_class_and_all_others() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=rng)
    mine, own, others = (torch.arange(300) // 100 == k for k in range(3))
    x[others, 1] += 3  # the rest of the class has such values too
    x[mine, 2] = 1.25  # one value
    x[mine, 3] -= 3  # smaller than any other
    assert mark_columns(x, mine, own, others, rng) == (2, 3)
