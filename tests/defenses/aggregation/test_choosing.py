"""RLR, FLAME, DnC and Bulyan: known answers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from aggregating import joined, kept, server, suspicion, updates
from torchbands.core.errors import InputError
from torchbands.defenses.aggregation._clusters import clusters
from torchbands.defenses.aggregation.bulyan import chosen
from torchbands.defenses.aggregation.flame import of_models
from torchbands.defenses.aggregation.krum import scores


def test_rlr_turns_round_where_the_signs_sum_to_less_than_the_threshold() -> None:
    rows = ([1.0, 1.0, -2.0], [1.0, 1.0, -2.0], [1.0, 1.0, -2.0], [1.0, 1.0, -2.0], [6.0, -9.0, -2.0])
    made = joined("rlr", updates(*rows, buffers=[[1], [2], [3], [4], [90]]), threshold=4)
    assert made.weights.tolist() == pytest.approx([2.0, 1.0, -2.0]), (
        "sums of signs: 5, 3 and -5; the mean of the second is -1"
    )
    assert made.buffers.tolist() == [3.0] and suspicion(made) == pytest.approx([0, 0, 0, 0, 1 / 3], abs=1e-5)
    with pytest.raises(InputError, match="threshold=6 among 5 clients") as error:
        joined("rlr", updates(*rows), threshold=6)
    assert "at most 5" in error.value.hint


def test_flame_keeps_the_majority_that_points_one_way_and_clips_by_the_median_of_all() -> None:
    rows = ([1.0, 0.0], [1.0, 0.1], [4.0, 0.2], [-1.0, 0.5], [0.0, -3.0])
    made = joined("flame", updates(*rows, buffers=[[1], [2], [3], [50], [60]]), noise=0.0)
    bound = math.hypot(1.0, 0.5)  # the lengths are 1, 1.005, 1.118, 3 and 4.005
    share = bound / math.hypot(4.0, 0.2)
    assert kept(made) == [0, 1, 2] and made.buffers.tolist() == [2.0]
    assert made.weights.tolist() == pytest.approx([(2 + 4 * share) / 3, (0.1 + 0.2 * share) / 3], rel=1e-5)
    assert min(suspicion(made)[3:]) > 1 >= max(suspicion(made)[:3])


def test_flame_compares_the_models_and_not_their_changes() -> None:
    rng = torch.Generator().manual_seed(0)
    sent, start = torch.randn(5, 30, generator=rng), torch.randn(30, generator=rng)
    models = (sent + start).double()
    torch.testing.assert_close(of_models(sent, start), models @ models.T, rtol=1e-5, atol=1e-5)


def test_flame_adds_noise_of_a_share_of_the_median_length() -> None:
    sent, start = updates(*([[3.0] + [0.0] * 39_999] * 3)), torch.zeros(40_000)
    blurred = server("flame", noise=0.5).step(sent, start).weights
    assert float(blurred[1:].std()) == pytest.approx(1.5, rel=0.03)


def test_flame_keeps_all_where_no_majority_is_alike() -> None:
    far = [[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, -1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    assert len(kept(joined("flame", updates(*far), noise=0.0))) == 6


def test_neighbours_are_counted_without_the_client_itself() -> None:
    """Three clients whose nearest is at .1, .1 and .3, a fourth alone: with 1 neighbour the three are dense."""
    at = torch.tensor([0.0, 0.1, 0.4, 9.0, 9.1, 9.2])
    found = clusters((at[:, None] - at).abs(), least=3, neighbours=1)
    assert found.tolist() == [0, 0, 0, 1, 1, 1] or found.tolist() == [1, 1, 1, 0, 0, 0]
    assert clusters(torch.zeros(1, 1), least=1, neighbours=1, single=True).tolist() == [0]


def test_dnc_leaves_out_the_farthest_along_the_top_direction() -> None:
    """Centred: -3.25, -2.25, -1.25 and 6.75; the second coordinate is alike and plays no part."""
    rows = ([0.0, 7.0], [1.0, 7.0], [2.0, 7.0], [10.0, 7.0])
    made = joined("dnc", updates(*rows, buffers=[[1], [2], [3], [90]]), f=1)
    assert kept(made) == [0, 1, 2] and made.weights.tolist() == [1.0, 7.0] and made.buffers.tolist() == [2.0]
    assert suspicion(made) == pytest.approx([v**2 / 2.25**2 for v in (3.25, 2.25, 1.25, 6.75)], rel=1e-4)
    assert kept(joined("dnc", updates(*rows), f=1, removed=2.0)) == [1, 2], "twice as many as are assumed"
    with pytest.raises(InputError, match=r"at least 2f\+1 = 5"):
        joined("dnc", updates(*rows), f=2)


def test_dnc_looks_at_other_coordinates_in_every_draw_and_keeps_who_never_stood_out() -> None:
    """Each of two clients stands out in one coordinate only; draws of one coordinate find both."""
    rows = ([0.0, 0.0], [0.1, 0.1], [0.2, 0.2], [9.0, 0.1], [0.1, 9.0])
    assert kept(joined("dnc", updates(*rows), f=1, draws=20, coordinates=1)) == [0, 1, 2]


def test_bulyan_by_hand() -> None:
    """Krum takes 2.1, 3, 1.1, 4.2 and, of 0 and 6 that tie, whose next is nearer; three are nearest the median 3."""
    rows = ([0.0], [1.1], [2.1], [3.0], [4.2], [6.0], [100.0])
    made = joined("bulyan", updates(*rows, buffers=rows), f=1)
    assert kept(made) == [1, 2, 3, 4, 5] and made.weights.tolist() == pytest.approx([(2.1 + 3.0 + 4.2) / 3])
    assert made.buffers.tolist() == pytest.approx(made.weights.tolist())
    assert suspicion(made) == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    with pytest.raises(InputError, match=r"at least 4f\+3 = 11"):
        joined("bulyan", updates(*rows), f=2)


def test_bulyan_chooses_whom_krum_chooses_among_those_that_are_left() -> None:
    points = torch.randn(15, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    apart, f = torch.cdist(points, points).square(), 3
    left = list(range(15))
    for _ in range(9):
        del left[int(scores(apart[left][:, left], f).argmin())]
    assert (~chosen(apart, 9, f)).nonzero().flatten().tolist() == left
