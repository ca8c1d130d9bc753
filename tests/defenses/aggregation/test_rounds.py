"""What a server is sent may be anything: sizes, NaN, Inf, nobody. The rules are not asked to bear it, the server is."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from aggregating import joined, kept, suspicion, updates
from torchbands.core.errors import Diverged, InputError
from torchbands.core.federated import Aggregator
from torchbands.core.registry import listing
from torchbands.testing import toy

NAN, INF = float("nan"), float("inf")
ROWS = ([0.0, 1.0], [1.0, 1.0], [2.5, 1.0], [3.1, 1.0], [50.0, 1.0])


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_an_update_that_is_not_finite_is_excluded_and_named(broken: float, caplog: pytest.LogCaptureFixture) -> None:
    sent = updates(*ROWS, [broken, 0.0], clients=[3, 5, 7, 9, 11, 13])
    with caplog.at_level(logging.WARNING):
        made = joined("trimmed-mean", sent, f=1)
    assert made.weights.tolist() == pytest.approx([2.2, 1.0])
    assert made.excluded is not None and made.excluded.tolist() == [False] * 5 + [True]
    assert kept(made) == [0, 1, 2, 3, 4] and max(suspicion(made)) == suspicion(made)[5]
    assert "clients 13" in caplog.text


def test_running_statistics_that_are_not_finite_exclude_as_well() -> None:
    made = joined("mean", updates(*ROWS[:3], buffers=[[1.0], [NAN], [3.0]]))
    assert made.buffers.tolist() == [2.0] and made.weights.tolist() == [1.25, 1.0] and kept(made) == [0, 2]


def test_who_is_excluded_was_one_of_the_malicious_that_are_assumed() -> None:
    """Otherwise NaN from one client would stop a federation whose rule has just enough clients."""
    assert kept(joined("krum", updates(*ROWS, [NAN, 0.0], [INF, 0.0]), f=2)) == [2]
    with pytest.raises(InputError, match="f=1 malicious among 4 clients"):
        joined("krum", updates(*ROWS[:4]), f=1)
    assert joined("krum", updates(*ROWS[:4], [NAN, 0.0]), f=1).excluded is not None


def test_a_round_of_nothing_finite_or_of_nobody() -> None:
    with pytest.raises(Diverged, match=r"every update of the round holds NaN or Inf \(clients 0, 1\)"):
        joined("mean", updates([NAN], [INF]))
    nobody = replace(updates([1.0, 2.0]).at(torch.tensor([False])))
    with pytest.raises(InputError, match="without any update"):
        joined("mean", nobody, torch.zeros(2))


def test_an_update_of_another_size() -> None:
    with pytest.raises(InputError, match=r"updates of shape \(5, 2\), expected \(5, 3\)"):
        joined("mean", updates(*ROWS), torch.zeros(3))
    with pytest.raises(InputError, match=r"buffers of shape \(2, 1\)"):
        joined("mean", replace(updates(*ROWS), buffers=torch.zeros(2, 1)))


AGGREGATORS = [cls.name for cls in listing("aggregator") if cls.__module__.startswith("torchbands")]


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_rule_bears_lengths_that_float32_cannot_square(name: str) -> None:
    """Finite numbers may still overflow inside a rule, where one client's would then be everybody's NaN."""
    rows = torch.randn(12, 1476, generator=torch.Generator().manual_seed(0)) * 0.1
    rows[3] = 1e25
    sent = replace(updates(*rows.tolist()), buffers=torch.zeros(12, 16))
    (cls,) = (c for c in listing("aggregator") if c.name == name)
    made = cls()
    assert isinstance(made, Aggregator)
    model = toy("federated").fresh(0)
    clean = toy("federated").load("clean")[torch.arange(made.clean_needed())] if made.clean_needed() else None
    out = made.start(model, clean).step(sent, torch.zeros(1476))
    assert torch.isfinite(out.weights).all() and (out.suspicion is None or torch.isfinite(out.suspicion).all())
