"""Krum: n - f - 2 neighbours by squared distance, and never the running statistics."""

from __future__ import annotations

import pytest

from aggregating import joined, kept, suspicion, updates
from torchbands.core.errors import InputError

#: Squared distances to the two nearest others sum to 7.25, 3.25, 2.61, 4.77 and 4455.86.
ROWS = ([0.0], [1.0], [2.5], [3.1], [50.0])


def test_krum_takes_whose_n_minus_f_minus_2_neighbours_are_nearest() -> None:
    made = joined("krum", updates(*ROWS, buffers=[[5.0], [6.0], [7.0], [8.0], [9.0]]), f=1)
    assert made.weights.tolist() == [2.5] and made.buffers.tolist() == [7.0] and kept(made) == [2]
    assert suspicion(made) == pytest.approx([v / 4.77 for v in (7.25, 3.25, 2.61, 4.77, 4455.86)], rel=1e-4)


@pytest.mark.parametrize(("settings", "who", "mean"), [({"m": 2}, [1, 2], 1.75), ({}, [0, 1, 2, 3], 1.65)])
def test_multi_krum_takes_the_mean_of_the_m_nearest(settings: dict[str, int], who: list[int], mean: float) -> None:
    made = joined("multi-krum", updates(*ROWS, buffers=[[float(i)] for i in range(5)]), f=1, **settings)
    assert kept(made) == who and made.weights.tolist() == pytest.approx([mean])
    assert made.buffers.tolist() == pytest.approx([sum(who) / len(who)])


def test_running_statistics_are_in_no_distance() -> None:
    near = joined("krum", updates(*ROWS, buffers=[[0.0], [0.0], [1e6], [0.0], [0.0]]), f=1)
    assert kept(near) == [2]


def test_lengths_that_float32_cannot_square_leave_the_honest_in_order() -> None:
    assert kept(joined("krum", updates(*ROWS[:4], [1e25]), f=1)) == [2]


@pytest.mark.parametrize("name", ["krum", "multi-krum"])
def test_too_many_malicious_are_refused_with_the_most_that_can_be_assumed(name: str) -> None:
    with pytest.raises(InputError, match=r"f=2 malicious among 5 clients.*at least 2f\+3 = 7") as error:
        joined(name, updates(*ROWS), f=2)
    assert "set f=1" in error.value.hint
    with pytest.raises(InputError, match="expected at least 0"):
        joined(name, updates(*ROWS), f=-1)


def test_multi_krum_of_more_updates_than_came() -> None:
    with pytest.raises(InputError, match="m=6 updates, and 5 came"):
        joined("multi-krum", updates(*ROWS), m=6)
    with pytest.raises(InputError, match="m=0 updates"):
        joined("multi-krum", updates(*ROWS), m=0)


def test_of_two_that_are_each_others_only_neighbour_the_order_does_not_decide() -> None:
    plain, turned = (joined("krum", updates(*rows), f=0) for rows in ([[0.0], [1.0], [3.0]], [[3.0], [1.0], [0.0]]))
    assert kept(plain) == kept(turned) == [1]
    plain, turned = (joined("krum", updates(*rows), f=0) for rows in ([[0.0], [1.0], [-3.0]], [[1.0], [0.0], [-3.0]]))
    assert plain.weights.tolist() == turned.weights.tolist() == [0.0]
