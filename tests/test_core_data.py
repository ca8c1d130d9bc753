"""Rows, lazy triggers and what a defender may see of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchbands.core.data import Data, Overlay, Pixels, concat, take, whole
from torchbands.core.errors import InputError
from torchbands.core.seeding import RowRng, generator, seed_of, seeded
from torchbands.core.trigger import Chain, Identity, Trigger
from torchbands.triggers.image import Patch
from torchbands.triggers.text import InsertWords


@dataclass(frozen=True, kw_only=True)
class Noise(Trigger):
    """Adds one uniform number per row and element: a trigger that draws."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        return batch + 1 + rng.uniform(*batch.shape[1:])


def rows_of(n: int, chosen: list[int]) -> Tensor:
    return torch.tensor(sorted({c % n for c in chosen}), dtype=torch.int64)


columns = st.tuples(st.integers(2, 40), st.lists(st.integers(0, 1000), min_size=1, max_size=20))


@given(columns, st.integers(0, 5), st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_stamping_changes_the_stamped_rows_and_no_others(column: tuple[int, list[int]], label: int, seed: int) -> None:
    n, chosen = column
    rows = rows_of(n, chosen)
    base = Data(torch.zeros(n, 3), torch.full((n,), 9))
    out = base.stamp(rows, Noise(), label=label, seed=seed)
    touched = torch.zeros(n, dtype=torch.bool)
    touched[rows] = True
    assert torch.equal((whole(out.x) != 0).all(1), touched)
    assert torch.equal((whole(out.x) == 0).all(1), ~touched)
    assert torch.equal(out.y, torch.where(touched, label, 9)) and torch.equal(out.poisoned, touched)
    assert base.x.eq(0).all() and base.y.eq(9).all() and base.poisoned is None


@given(columns, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_random_trigger_is_the_same_whatever_batch_a_row_comes_in(
    column: tuple[int, list[int]], rand: object
) -> None:
    n, chosen = column
    out = Data(torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64)).stamp(
        rows_of(n, chosen), Noise() | Noise(), label=None, seed=5
    )
    order = list(range(n))
    rand.shuffle(order)  # type: ignore[attr-defined]
    shuffled = torch.tensor(order)
    together = whole(out.x)
    assert torch.equal(take(out.x, shuffled), together[shuffled])
    alone = torch.cat([take(out.x, torch.tensor([i])) for i in range(n)])
    assert torch.equal(alone, together)
    assert torch.equal(concat([b.x for b in out.batches(3)]), together)


@given(st.lists(st.text(st.characters(categories=["Ll"]), max_size=12), min_size=2, max_size=12))
@settings(max_examples=30, deadline=None)
def test_text_columns_are_stamped_lazily_too(texts: list[str]) -> None:
    data = Data(list(texts), torch.zeros(len(texts), dtype=torch.int64))
    out = data.stamp(torch.tensor([0]), InsertWords(words=("zz9",)), label=1, seed=0)
    assert isinstance(out.x, Overlay) and "zz9" in whole(out.x)[0].split()
    assert whole(out.x)[1:] == texts[1:] and data.x == texts


def test_blind_data_has_no_truth_left() -> None:
    n = 12
    data = Data(torch.rand(n, 3, 8, 8), torch.zeros(n, dtype=torch.int64), meta={"client": torch.arange(n)})
    planted = data.stamp(torch.tensor([1, 2]), Patch(), label=1, seed=0)
    planted = planted.stamp(torch.tensor([3]), Patch(), label=None, seed=1, poisoned=False)
    assert planted.poisoned is not None and planted.poisoned.tolist() == [i in (1, 2) for i in range(n)]
    assert planted.meta["cover"].nonzero().flatten().tolist() == [3]
    blind = planted.blind()
    assert blind.poisoned is None and set(blind.meta) == {"client"}
    assert isinstance(blind.x, Tensor) and torch.equal(blind.x, whole(planted.x)) and torch.equal(blind.y, planted.y)
    reachable = [blind, blind.x, blind.y, *blind.meta.values()]
    assert not any(isinstance(part, Overlay) or hasattr(part, "trigger") for part in reachable)


def test_overlays_stack_in_order() -> None:
    data = Data(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    white, checker = Patch(margin=0, corner="top-left"), Patch(margin=0, corner="top-left", fill="checker")
    both = data.stamp(torch.tensor([0]), white, label=None, seed=0).stamp(
        torch.tensor([0, 1]), checker, label=1, seed=0
    )
    one_go = data.stamp(torch.tensor([0]), white | checker, label=None, seed=0)
    assert torch.equal(whole(both.x)[0], whole(one_go.x)[0])
    assert both.poisoned is not None and both.poisoned.tolist() == [True, True, False, False]


def test_pixels_are_read_as_floats_and_poisoned_without_a_copy() -> None:
    raw = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8)
    data = Data(Pixels(raw), torch.zeros(10, dtype=torch.int64)).stamp(torch.tensor([4]), Patch(), label=1, seed=0)
    assert data[torch.tensor([4])].x[0, 0, -2, -2] == 1.0
    assert torch.equal(data[torch.tensor([3])].x, raw[3:4].float() / 255)
    assert data.x.base.bytes is raw


def test_indexing_reads_rows_by_numbers_masks_and_slices() -> None:
    data = Data(torch.arange(6.0)[:, None], torch.arange(6), meta={"client": torch.arange(6) * 10})
    for at in (torch.tensor([1, 3]), torch.arange(6) % 2 == 1, slice(1, 4, 2)):
        part = data[at]
        assert part.y.tolist()[:2] == [1, 3] and part.meta["client"].tolist()[:2] == [10, 30]
    assert len(data[torch.arange(0)]) == 0


def test_samples_are_drawn_by_identity_and_balanced() -> None:
    data = Data(torch.zeros(100, 1), torch.tensor([0] * 90 + [1] * 10))
    assert data.sample(20, "a", balanced=True).y.bincount().tolist() == [10, 10]
    one, two = data.sample(20, "a"), data.sample(20, "a")
    assert torch.equal(one.y, two.y) and len(data.sample(1000, "a")) == 100


@pytest.mark.parametrize(
    ("x", "y", "extra", "said"),
    [
        (torch.zeros(3, 1), torch.zeros(3), {}, "int64 of shape \\(N,\\), got torch.float32"),
        (torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64), {}, "3 samples but 2 values of 'y'"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), {"client": torch.zeros(5)}, "5 values of 'client'"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(x: Tensor, y: Tensor, extra: dict[str, Tensor], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Data(x, y, meta=extra)


def test_row_numbers_look_uniform_and_differ_by_row_draw_and_seed() -> None:
    rng = RowRng(3, torch.arange(4000))
    first, second = rng.uniform(4), rng.uniform(4)
    for drawn in (first, second):
        assert drawn.min() >= 0 and drawn.max() < 1
        assert abs(float(drawn.mean()) - 0.5) < 0.02 and abs(float(drawn.var()) - 1 / 12) < 0.005
        assert len(drawn.unique()) > 15000
    assert not torch.equal(first, second) and not torch.equal(first, RowRng(4, torch.arange(4000)).uniform(4))
    correlation = torch.corrcoef(torch.stack([first[:-1, 0], first[1:, 0]]))[0, 1]
    assert abs(float(correlation)) < 0.06
    normal, dice = rng.normal(8), rng.integers(6, 3)
    assert abs(float(normal.mean())) < 0.03 and abs(float(normal.std()) - 1) < 0.03
    assert dice.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert len(RowRng(0, torch.arange(0)).uniform(2)) == 0


def test_seeds_are_identities_and_leave_the_global_generator_alone() -> None:
    assert seed_of("a", 1) == seed_of("a", 1) != seed_of("a", 2)
    assert 0 <= seed_of("a") < 2**63
    assert torch.equal(torch.rand(3, generator=generator("x")), torch.rand(3, generator=generator("x")))
    before = torch.get_rng_state()
    with seeded("init", 1):
        inside = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded("init", 1):
        assert torch.equal(torch.rand(3), inside)


def test_learned_tensors_travel_through_chains() -> None:
    from torchbands.triggers.image import MaskPattern

    inner = MaskPattern(weights={"mask": torch.ones(1, 2, 2), "pattern": torch.full((1, 2, 2), 0.5)})
    chained = Identity() | inner
    assert isinstance(chained, Chain) and set(chained.tensors()) == {"second.mask", "second.pattern"}
    back = Chain(first=Identity(), second=MaskPattern()).with_tensors(chained.tensors())
    x = torch.rand(2, 1, 2, 2)
    rng = RowRng(0, torch.arange(2))
    assert torch.equal(back(x, rng), chained(x, rng)) and back(x, rng).eq(0.5).all()
