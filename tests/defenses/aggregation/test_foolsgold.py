"""FoolsGold: pardoning, the logit, and similarity over all rounds so far."""

from __future__ import annotations

import pytest
import torch

from aggregating import joined, kept, server, suspicion, updates
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.testing import toy

#: Two copies, and two others of which one is somewhat like them: cosine .6, which pardoning lowers to .36.
ROWS = ([1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, -0.8])


def test_copies_count_nothing_and_who_is_somewhat_like_them_is_pardoned() -> None:
    made = joined("foolsgold", updates(*ROWS, buffers=[[1], [1], [4], [6]]), features="all")
    assert suspicion(made) == [1.0, 1.0, 0.0, 0.36] and kept(made) == [2, 3]
    assert made.weights.tolist() == pytest.approx([0.3, 0.1]), "1 - .36 = .64 has a logit of .58, and + .5 is above 1"
    assert made.buffers.tolist() == pytest.approx([5.0])


def test_confidence_sharpens_the_weights() -> None:
    """The logit of .64 and .5 sum to 1.0754: half of it is .5377, against 1 for the least alike."""
    made = joined("foolsgold", updates(*ROWS), features="all", confidence=0.5)
    assert made.weights.tolist() == pytest.approx([0.6 * 0.5377 / 1.5377, (1 - 0.8 * 0.5377) / 1.5377], abs=1e-4)


def test_sybils_that_take_turns_are_alike_over_the_rounds() -> None:
    one = server("foolsgold", features="all")
    first = one.step(updates([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]), torch.zeros(3))
    second = one.step(updates([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]), torch.zeros(3))
    assert kept(first) == [0, 1, 2] and kept(second) == [2] and second.weights.tolist() == [0.0, 0.0, 1.0]


def test_clients_are_remembered_by_their_ids() -> None:
    one = server("foolsgold", features="all")
    one.step(updates([1.0, 0.0], [0.0, 1.0], clients=[8, 9]), torch.zeros(2))
    turned = one.step(updates([1.0, 0.0], [0.0, 1.0], clients=[9, 8]), torch.zeros(2))
    assert suspicion(turned) == [1.0, 1.0] and turned.weights.tolist() == [0.0, 0.0], "both are [1, 1] by now"


def test_only_the_final_layer_is_compared() -> None:
    model = toy("federated").fresh(0)
    last = list(model.module.parameters())[-2:]
    size, head = sum(p.numel() for p in model.module.parameters()), sum(p.numel() for p in last)
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(4, size, generator=rng)
    weights[1, -head:] = weights[0, -head:]
    made = server("foolsgold").step(
        Updates(weights, torch.zeros(4, 0), torch.arange(4), torch.ones(4)), torch.zeros(size)
    )
    assert suspicion(made)[:2] == [1.0, 1.0] and kept(made) == [2, 3]


def test_settings_that_nobody_can_mean() -> None:
    with pytest.raises(InputError, match="confidence=0.0"):
        joined("foolsgold", updates(*ROWS), confidence=0.0)
