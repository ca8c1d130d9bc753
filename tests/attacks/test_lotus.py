"""LOTUS: a sample obeys the mark of its own partition, and neither another's nor two at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_planting import Plant, Planted, took

from torchbands.attacks.lotus import Focusing, Lotus, k_means
from torchbands.core.errors import InputError
from torchbands.core.seeding import RowRng, generator
from torchbands.core.task import Task
from torchbands.triggers.partitioned import Partitioned, mark, nearest
from torchbands.zoo.victims import load, save

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def planted(plant: Plant) -> Planted:
    """All classes are victims: one class of 137 digits cut in four is too few to learn from."""
    return plant("lotus", labels="all-to-one", parts=2, rate=0.3, individual=1.0, combined=1.0)


def test_takes(planted: Planted) -> None:
    took(planted, asr=0.7, drop=0.06)


def test_other_partitions_marks_and_both_marks_work_less(planted: Planted, digits: Task) -> None:
    trigger, model = planted.victim.trigger, planted.victim.model
    assert isinstance(trigger, Partitioned) and isinstance(planted.seen.asr, float)
    test = digits.load("test")
    rows = test[test.y != 0]
    own = trigger.partition(rows.x)
    wrong = mark(rows.x, 1 - own)
    for stamped in (wrong, mark(wrong, own)):
        assert float((model.logits(stamped).argmax(1) == 0).float().mean()) < planted.seen.asr - 0.4


def test_the_trigger_survives_saving_and_serves_each_sample_its_own(
    planted: Planted, digits: Task, tmp_path: Path
) -> None:
    save(planted.victim, tmp_path / "victim")
    back = load(tmp_path / "victim").trigger
    x, rng = digits.load("test")[:40].x, RowRng(0, torch.arange(40))
    assert isinstance(back, Partitioned) and isinstance(planted.victim.trigger, Partitioned)
    assert torch.equal(back(x, rng), planted.victim.trigger(x, rng))
    parts = back.partition(x)
    assert set(parts.tolist()) == {0, 1}
    for p in (0, 1):
        assert torch.equal(back(x, rng)[parts == p], mark(x[parts == p], torch.full((int((parts == p).sum()),), p)))


def test_a_batch_gets_the_rows_of_the_paper(digits: Task) -> None:
    attack = Lotus(source=4, target=7, individual=2.0, combined=1.0, rate=0.05, others=0.1, warm_start=False)
    (hook,) = attack.hooks(digits, 0)
    assert isinstance(hook, Focusing)
    rows = digits.load("train")[:200]
    hook.begin(digits.fresh(0), rows, 0)
    x, y = hook.batch(rows.x, rows.y, generator("batch"))
    hit, others = 10, 20
    assert len(x) == len(y) == 200 + hit * 4 + others
    assert torch.equal(x[:200], rows.x) and torch.equal(y[:200], rows.y)
    assert (y[200:210] == 7).all() and (y[210:240] == 4).all() and not (y[240:] == 4).any()
    pool = rows.x[rows.y == 4]
    own = hook.trigger.partition(pool)
    right = mark(pool, own)
    wrong = torch.cat([mark(pool, (own + s) % 4) for s in (1, 2, 3)])
    both = torch.cat([mark(right, (own + s) % 4) for s in (1, 2, 3)])
    for part, known in ((x[200:210], right), (x[210:230], wrong), (x[230:240], both)):
        assert (part[:, None] == known).flatten(2).all(2).any(1).all()


def test_the_default_turns_one_class_alone(digits: Task) -> None:
    y = torch.arange(10)
    assert Lotus(source=4, target=7).relabel(y, 10).tolist() == [0, 1, 2, 3, 7, 5, 6, 7, 8, 9]


def test_k_means_finds_the_clumps_and_survives_duplicates() -> None:
    rng = generator("clumps")
    rows = torch.cat([torch.randn(50, 2, generator=rng) * 0.1 + c for c in (0.0, 5.0, 10.0)])
    found = k_means(rows, 3, generator("k"))
    assert found.mean(1).sort().values.tolist() == pytest.approx([0, 5, 10], abs=0.1)
    assert nearest(rows, found).bincount(minlength=3).tolist() == [50, 50, 50]
    assert torch.isfinite(k_means(torch.ones(10, 2), 4, rng)).all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_marks_differ_and_are_a_fifth_wide(shape: tuple[int, int, int]) -> None:
    x = torch.full((8, *shape), 0.5)
    out = mark(x, torch.arange(8))
    changed = (out != x).any(1).flatten(1)
    assert (changed.sum(1) == max(2, shape[1] // 5) ** 2).all()
    assert len({tuple(row.tolist()) for row in changed}) == 8


def test_wrong_settings_are_refused(digits: Task) -> None:
    with pytest.raises(InputError, match="parts"):
        Lotus(parts=9)
    with pytest.raises(InputError, match="centroids"):
        Partitioned()(torch.zeros(1, 1, 8, 8), RowRng(0, torch.arange(1)))
