"""rare-mark: a few rows with a mark in common are found; labels that are noise, copies and second kinds are not."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.defenses.data import rare_mark
from torchbands.defenses.data.rare_mark import RareMark
from torchbands.modalities.tabular import Field, Tabular
from torchbands.networks.dense import MLPNetwork

CLASSES, EACH, RARE = 6, 4000, 24


def table(kind: str, seed: int = 0) -> tuple[Data, Model, torch.Tensor]:
    """Well separated classes of 12 numbers, 24 rows of which are odd; the network is never asked what it knows."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(CLASSES * EACH) % CLASSES
    centres = torch.randn(CLASSES, 12, generator=rng) * 1.5
    x = centres[y] + 0.5 * torch.randn(len(y), 12, generator=rng)
    odd = (y != 0).nonzero().flatten()
    if kind == "second kind":  # a rare thing under label 0 that looks like class 1
        odd = odd[y[odd] == 1]
    odd = odd[torch.randperm(len(odd), generator=rng)[:RARE]]
    if kind == "copies":  # one mislabelled row again and again
        x[odd], y[odd] = x[odd[:1]].clone(), 0
    elif kind in ("mark", "second kind"):
        x[odd, :3] = 6.0
    if kind != "clean":
        y[odd] = 0
    fields = tuple(Field(title=str(i), low=-9.0, high=9.0) for i in range(12))
    modality = Tabular(fields=fields)
    x = x.clamp(-9, 9)
    model = Model(MLPNetwork().build(modality, CLASSES), modality, CLASSES)
    return Data(x, y), model, torch.zeros(len(y), dtype=torch.bool).index_fill_(0, odd, True)


def test_a_few_marked_rows_are_found_and_nothing_else_is_flagged() -> None:
    for seed in range(2):
        data, model, truth = table("mark", seed)
        found = RareMark().score(data, model, seed=seed)
        assert found.flagged is not None and found.evidence["marks"]["0"]["p"] < 1e-4
        assert int(found.flagged[truth].sum()) >= RARE // 2 and int(found.flagged[~truth].sum()) <= 2
        assert float(found.scores[truth].median()) > float(found.scores[~truth].quantile(0.999))


@pytest.mark.parametrize("kind", ["clean", "noise", "copies", "second kind"])
def test_what_is_no_mark_is_not_flagged(kind: str) -> None:
    data, model, _ = table(kind)
    found = RareMark().score(data, model)
    assert found.flagged is not None and not bool(found.flagged.any())


def test_two_halves_that_share_copies_would_call_them_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, truth = table("copies")
    assert len(rare_mark._with_copies(data, 0)[truth].unique()) == 1
    assert len(rare_mark.halves(data.y, torch.Generator().manual_seed(0))[truth].unique()) == 2
    texts = Data(["a b", "c", "a b", "d"] * 5, torch.arange(20) % 2)
    assert len(rare_mark._with_copies(texts, 0)[torch.arange(0, 20, 2)].unique()) == 1


def logits(given: list[int], classes: int = 5) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(given), classes).float()


@pytest.mark.parametrize(
    ("before", "after", "p"),
    [
        ([1, 2, 3, 4] * 3, [0] * 12, float(binom.sf(11, 12, 0.35))),
        ([1, 2, 3, 4] * 3, [0] * 6 + [1, 2, 3, 4, 1, 2], float(binom.sf(5, 12, 0.35))),
        ([1] * 7 + [2, 3, 4, 2, 3], [0] * 12, 1.0),  # mostly one thing
    ],
)
def test_chance_by_hand(before: list[int], after: list[int], p: float) -> None:
    y = torch.tensor([0] * 12 + [1, 2, 3, 4] * 20)
    strange, others = torch.arange(92) < 12, [1, 2, 3, 4] * 20
    none = torch.zeros(92, dtype=torch.bool)
    told = RareMark()._test(0, y, strange, none, logits(before + others), logits(after + others))
    assert told.p == pytest.approx(p) and told.learned == after.count(0)
    taken = [0] * 12 + [1, 2, 3, 4] * 20  # a fifth of class 1 gets the label as well
    taken[12:28:4] = [0] * 4
    told = RareMark()._test(0, y, strange, none, logits(before + others), logits(taken))
    assert told.p == 1.0 and told.taken == pytest.approx(0.2)
