"""The p-value is a p-value, whatever the statistic, at every pool size."""

from __future__ import annotations

import pytest
import torch

from torchbands.scanner.calibrate import Kind, compare, p_value, reduced, standard_scores


def _pools(rng: torch.Generator, n: int, classes: int) -> dict[str, torch.Tensor]:
    """What three views might see of n + 1 exchangeable models: skewed, tied and correlated numbers."""
    base = torch.randn(n + 1, classes, generator=rng)
    return {
        "skewed": base.exp(),
        "pairs": torch.randn(n + 1, classes, classes, generator=rng) + base[:, :, None],
        "tied": (2 * torch.randn(n + 1, classes, generator=rng)).round(),
        "vector": torch.randn(n + 1, 7, generator=rng) * torch.arange(1, 8),
    }


KINDS = {"skewed": Kind(), "pairs": Kind(reduce="either"), "tied": Kind(), "vector": Kind(2, False, "top5")}


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("n", [19, 40])
def test_p_of_an_exchangeable_suspect_is_uniform(classes: int, n: int) -> None:
    rng = torch.Generator().manual_seed(n + classes)
    p = torch.tensor([compare(_pools(rng, n, classes), KINDS).p for _ in range(600)])
    for alpha in (0.05, 0.1, 0.25, 0.5):
        wanted = int(alpha * (n + 1)) / (n + 1)
        share = float((p <= alpha + 1e-9).float().mean())
        spread = (wanted * (1 - wanted) / len(p)) ** 0.5
        assert wanted - 4 * spread - 0.02 <= share <= wanted + 4 * spread, (alpha, share)


def test_one_cheap_class_is_found_and_named() -> None:
    rng = torch.Generator().manual_seed(0)
    pool = torch.randn(41, 10, generator=rng)
    pool[-1, 3] += 8
    found = compare({"view": pool}, {"view": Kind()})
    assert found is not None and found.p == 1 / 41
    assert int(found.cells["view"].argmax()) == 3


def test_a_model_whose_classes_all_shift_together_is_no_outlier() -> None:
    rng = torch.Generator().manual_seed(1)
    pool = torch.randn(41, 10, generator=rng)
    pool[-1] += 50
    assert compare({"view": pool}, {"view": Kind()}).p > 0.05
    assert compare({"view": pool}, {"view": Kind(centre=False)}).p == 1 / 41


def test_two_classes_are_compared_without_centring() -> None:
    rng = torch.Generator().manual_seed(2)
    pool = torch.randn(31, 2, generator=rng)
    pool[-1, 1] += 9
    found = compare({"view": pool}, {"view": Kind()})
    assert found.p == 1 / 31 and int(found.cells["view"].argmax()) == 1


def test_both_ends_count_where_they_should() -> None:
    rng = torch.Generator().manual_seed(3)
    pool = torch.randn(31, 6, generator=rng)
    pool[-1, 0] -= 9
    assert compare({"v": pool}, {"v": Kind(1, False)}).p > 0.05
    assert compare({"v": pool}, {"v": Kind(2, False)}).p == 1 / 31


def test_a_view_that_speaks_for_a_model_takes_nothing_off_one_that_speaks_against_it() -> None:
    rng = torch.Generator().manual_seed(8)
    high, low = torch.randn(31, 1, generator=rng), torch.randn(31, 1, generator=rng)
    high[-1], low[-1] = 5.0, -5.0
    found = compare({"high": high, "low": low}, {"high": Kind(), "low": Kind()})
    assert found is not None and float(found.per_view["low"][-1]) < -3 < 3 < float(found.per_view["high"][-1])
    assert float(found.combined[-1]) == pytest.approx(float(found.per_view["high"][-1])) and found.p == 1 / 31


def test_missing_cells_are_left_out_and_missing_views_are_none() -> None:
    rng = torch.Generator().manual_seed(4)
    pool = torch.randn(31, 4, 4, generator=rng)
    pool[:, torch.arange(4), torch.arange(4)] = torch.nan
    pool[5, 0] = torch.nan
    z = standard_scores(pool, Kind())
    assert z[:, ::5].isnan().all() and reduced(z, Kind()).isfinite().all()
    gone = pool.clone()
    gone[-1] = torch.nan
    assert compare({"v": gone}, {"v": Kind()}) is None
    assert compare({"v": pool[:4]}, {"v": Kind()}) is None


def test_ties_count_against_the_suspect_being_unusual() -> None:
    assert p_value(1.0, torch.ones(19)) == 1.0
    assert p_value(2.0, torch.ones(19)) == 1 / 20


def test_constant_and_infinite_numbers_do_no_harm() -> None:
    pool = torch.ones(25, 5)
    pool[3, 2] = torch.inf
    found = compare({"v": pool}, {"v": Kind()})
    assert found is None or found.p == 1.0


def test_references_that_lack_a_view_are_not_ranked() -> None:
    """Their sum has fewer parts, so that any suspect would stand out among them."""
    rng = torch.Generator().manual_seed(5)
    pools = {name: torch.randn(31, 5, generator=rng) for name in ("one", "two", "three")}
    for name in ("two", "three"):
        pools[name][:20] = torch.nan
    kinds = dict.fromkeys(pools, Kind())
    found = compare(pools, kinds)
    assert found is not None and found.references == 10 and found.p >= 1 / 11
    whole = compare({name: pool[20:] for name, pool in pools.items()}, kinds)
    assert whole is not None and whole.references == 10


def test_a_difference_that_is_small_beside_what_can_be_does_not_stand_out() -> None:
    """Cells in which the others agree to the last digit: without a floor, nothing at all stands out there."""
    pool = torch.randn(21, 50, generator=torch.Generator().manual_seed(0))
    pool[:, :25] *= 1e-3
    pool[-1, 0] = 0.05
    assert float(standard_scores(pool, Kind(centre=False))[-1, 0]) > 3
    assert float(standard_scores(pool, Kind(centre=False, floor=0.1))[-1, 0]) < 1
    pool[-1, 0] = 5.0
    assert float(standard_scores(pool, Kind(centre=False, floor=0.1))[-1].argmax()) == 0
    assert float(standard_scores(pool, Kind(centre=False, floor=0.1))[-1, 0]) > 5


def test_p_stays_valid_with_a_floor() -> None:
    rng = torch.Generator().manual_seed(1)
    kind = Kind(centre=False, reduce="either", floor=0.1)
    found = []
    for _ in range(300):
        spread = torch.rand(40, generator=rng).square()
        pool = torch.randn(20, 40, generator=rng) * spread
        number = reduced(standard_scores(pool, kind), kind)
        found.append(p_value(float(number[-1]), number[:-1]))
    assert 0.02 <= sum(p <= 0.05 for p in found) / len(found) <= 0.085
