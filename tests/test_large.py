"""What is too large to be held twice is worked on in parts, and the result is that of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from torchbands.attacks.label_consistent import pgd
from torchbands.attacks.surrogate import universal
from torchbands.core import resident as residence
from torchbands.core.budget import MOST, Live
from torchbands.core.data import Data, Some, whole
from torchbands.core.model import Model
from torchbands.core.resident import Streamed, resident
from torchbands.core.seeding import RowRng
from torchbands.defenses.data import _tokens, subspace
from torchbands.defenses.data.cross_split import CrossSplit
from torchbands.defenses.data.subspace import Centred, principal
from torchbands.defenses.training import partition_aggregation
from torchbands.defenses.training.partition_aggregation import content_hash
from torchbands.learners.sgd import SGD
from torchbands.scanner import calibrate
from torchbands.scanner.calibrate import Kind, compare
from torchbands.testing.toys import toy


@pytest.mark.parametrize("width", [40, 200])
def test_features_are_centred_in_parts(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(500, width, generator=rng) * torch.linspace(5, 1, width) + 3
    rows = torch.randperm(500, generator=rng)[:300]
    at_once = Centred(features, rows)
    wanted = at_once @ principal(at_once, 3)
    monkeypatch.setattr(subspace, "TOGETHER", 70 * width)
    parts = Centred(features, rows)
    assert [len(part) for part in parts.parts()] == [70, 70, 70, 70, 20]
    torch.testing.assert_close(parts.mean, features[rows].mean(0), rtol=1e-5, atol=1e-5)
    found = parts @ principal(parts, 3)
    torch.testing.assert_close(found.abs(), wanted.abs(), rtol=1e-2, atol=1e-2)
    plain = features[rows] - features[rows].mean(0)
    torch.testing.assert_close(wanted, plain @ principal(plain, 3), rtol=1e-2, atol=1e-2)


def test_no_second_copy_of_the_features_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(4000, 256, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(subspace, "TOGETHER", 100 * 256)
    with Live([features]) as live:
        centred = Centred(features)
        _ = centred @ principal(centred, 2)
    assert live.peak < features.nbytes / 2


def test_pairs_of_a_row_and_a_token_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    row, token = torch.randint(50, (900,), generator=rng).sort().values, torch.randint(9, (900,), generator=rng)
    order = torch.randperm(900, generator=rng)
    wanted = (row * 9 + token).unique()
    for pairs in (1 << 20, 100, 1):
        monkeypatch.setattr(_tokens, "PAIRS", pairs)
        for r, t in ((row, token), (row[order], token[order])):
            rows, tokens = _tokens.once(r, t)
            assert torch.equal(rows * 9 + tokens, wanted)


def test_a_hash_takes_a_few_times_what_is_mixed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = content_hash(x)
    assert len(wanted.unique()) == 200 and int(wanted.min()) >= 0
    monkeypatch.setattr(partition_aggregation, "MIXED", 10 * x[0].nbytes)
    with Live([x]) as live:
        assert torch.equal(content_hash(x), wanted)
    assert live.peak < 25 * 10 * x[0].nbytes < 25 * x.nbytes


@pytest.mark.parametrize("reduce", ["max", "top5", "either"])
def test_a_pool_of_many_cells_is_compared_in_parts(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = torch.randn(21, 12, 12, generator=torch.Generator().manual_seed(0))
    pool[:, 3] = pool[2, 5, 5] = torch.nan
    pool[-1, 1, 7] += 9
    kind = Kind(reduce=reduce, floor=0.05)  # type: ignore[arg-type]
    whole_pool = compare({"pairs": pool}, {"pairs": kind})
    monkeypatch.setattr(calibrate, "TOGETHER", 300)
    parts = compare({"pairs": pool}, {"pairs": kind})
    assert whole_pool is not None and parts is not None and whole_pool.p == parts.p <= 1 / 20
    torch.testing.assert_close(whole_pool.cells["pairs"], parts.cells["pairs"], equal_nan=True)
    torch.testing.assert_close(whole_pool.combined, parts.combined)


def test_perturbations_do_not_depend_on_the_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy("image")
    model, data = task.fresh(0), task.load("train")[:40]
    found = []
    for rows in (256, 7):
        monkeypatch.setitem(MOST, "cpu", rows)
        rng = torch.Generator().manual_seed(0)
        delta = universal(model, data, 1, eps=0.1, steps=4, step=0.03, batch=32, rng=rng)
        found.append((delta, pgd(model, data.x, data.y, 0.1, 4, RowRng(0, torch.arange(40)))))
    for one, two in zip(*found, strict=True):  # a sign may turn where a slope is 0 but for rounding
        assert float(((one - two).abs() < 1e-4).float().mean()) > 0.99


@dataclass
class Counting:
    """A column that says how many rows were read at once, at most."""

    x: Tensor
    most: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor) -> Tensor:
        Counting.most = max(Counting.most, len(rows))
        return self.x[rows]


def test_tokens_that_do_not_fit_are_encoded_when_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy("code")
    data = task.load("train")[:200]
    trained = []
    for size in (1 << 30, 1 << 10):
        monkeypatch.setattr(residence, "RESIDENT_BYTES", size)
        model = task.fresh(0)
        assert isinstance(resident(model, data.x), Streamed) == (size == 1 << 10)
        SGD(epochs=1, batch=32, precision="float32").fit(model, data, seed=0)
        trained.append(model.logits(data.x))
    assert torch.equal(*trained)


def test_a_filter_does_not_read_all_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy("image")
    data = task.load("train")[:300]
    monkeypatch.setattr("torchbands.learners.sgd.RESIDENT_BYTES", 1)
    model = task.fresh(0)
    wanted = CrossSplit(steps=1, learner=SGD(epochs=1, batch=32)).score(data, model).scores
    Counting.most = 0
    found = CrossSplit(steps=1, learner=SGD(epochs=1, batch=32)).score(Data(Counting(data.x), data.y), model).scores
    assert torch.equal(found, wanted) and 0 < Counting.most <= 256


def test_some_rows_of_a_column() -> None:
    task = toy("text")
    data = task.load("train")
    rows = torch.tensor([5, 3, 9])
    some = data.some(rows)
    assert isinstance(some.x, Some) and whole(some.x) == [data.x[i] for i in rows.tolist()]
    assert torch.equal(some.y, data.y[rows]) and len(data.some(data.y == 1)) == int((data.y == 1).sum())
    model = Model(task.fresh(0).module, task.modality, task.classes)
    torch.testing.assert_close(model.logits(some.x), model.logits(data[rows].x))
