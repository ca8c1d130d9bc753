"""Trimmed mean, geometric median, norm clipping, weak DP: what a single update may change is bounded."""

from __future__ import annotations

import pytest
import torch

from aggregating import joined, kept, server, suspicion, updates
from torchbands.core.errors import InputError


def test_the_trimmed_mean_is_without_the_ends_of_every_coordinate() -> None:
    rows = ([1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [100.0, -7.0])
    made = joined("trimmed-mean", updates(*rows, buffers=rows), f=1)
    assert made.weights.tolist() == [3.0, 0.0] == made.buffers.tolist() and kept(made) == [0, 1, 2, 3, 4]
    assert suspicion(made) == [0.5, 0.0, 0.0, 0.0, 1.0], "of equal values none is trimmed rather than another"
    with pytest.raises(InputError, match=r"at least 2f\+1 = 7"):
        joined("trimmed-mean", updates(*rows), f=3)


@pytest.mark.parametrize(("iterations", "where"), [(1, 0.8), (2, 4 / 9)])
def test_the_geometric_median_by_hand(iterations: int, where: float) -> None:
    """From the mean 4/3: weights .75, .75 and .375 give .8, then 1.25, 1.25 and .3125 give 4/9."""
    made = joined("geometric-median", updates([0.0], [0.0], [4.0], buffers=[[1], [3], [90]]), iterations=iterations)
    assert made.weights.tolist() == pytest.approx([where]) and made.buffers.tolist() == [3.0]
    assert suspicion(made) == pytest.approx([1.0, 1.0, (4 - where) / where], rel=1e-4)


def test_the_geometric_median_stays_where_all_agree_and_where_one_is_endless() -> None:
    assert joined("geometric-median", updates([2.0], [2.0], [2.0])).weights.tolist() == [2.0]
    far = joined("geometric-median", updates([1.0], [1.0], [1.0], [1e30]), iterations=200)
    assert far.weights.tolist() == pytest.approx([1.0], abs=1e-3)


def test_norm_clipping_shortens_only_what_is_too_long() -> None:
    made = joined("norm-clipping", updates([3.0, 4.0], [0.0, 1.0], [0.0, 0.0], buffers=[[1], [2], [9]]), bound=1.0)
    assert made.weights.tolist() == pytest.approx([0.2, 0.6]) and made.buffers.tolist() == [2.0]
    assert suspicion(made) == [5.0, 1.0, 0.0]
    plain = joined("norm-clipping", updates([3.0, 4.0], [0.0, 1.0], [0.0, 0.0]), bound=5.0)
    assert plain.weights.tolist() == pytest.approx([1.0, 5 / 3])


def test_weak_dp_adds_noise_of_its_size_by_seed_and_round() -> None:
    sent, start = updates([0.0] * 20_000, [0.0] * 20_000), torch.zeros(20_000)
    one = server("weak-dp", seed=1, sigma=0.5)
    first, second = one.step(sent, start).weights, one.step(sent, start).weights
    assert float(first.std()) == pytest.approx(0.5, rel=0.03) and float(first.mean()) == pytest.approx(0, abs=0.02)
    assert not torch.equal(first, second) and torch.equal(
        server("weak-dp", seed=1, sigma=0.5).step(sent, start).weights, first
    )
    assert not torch.equal(server("weak-dp", seed=2, sigma=0.5).step(sent, start).weights, first)
    assert joined("weak-dp", updates([3.0, 4.0], [0.0, 1.0]), bound=1.0, sigma=0.0).weights.tolist() == pytest.approx(
        [0.3, 0.9]
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("geometric-median", {"iterations": 0}),
        ("geometric-median", {"smoothing": 0.0}),
        ("norm-clipping", {"bound": 0.0}),
        ("weak-dp", {"bound": -1.0}),
        ("weak-dp", {"sigma": -0.1}),
        ("trimmed-mean", {"f": -1}),
    ],
)
def test_settings_that_nobody_can_mean(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=name):
        joined(name, updates([0.0], [1.0], [2.0]), **settings)
