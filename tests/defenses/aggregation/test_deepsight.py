"""DeepSight: update energy of the final layer, answers to noise, and the vote of a cluster, by hand and together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from aggregating import joined, kept, suspicion
from torchbands.core.errors import NotApplicable
from torchbands.core.federated import Updates
from torchbands.core.model import Model
from torchbands.defenses.aggregation._head import head_of
from torchbands.defenses.aggregation.deepsight import (
    DeepSight,
    clusters_apart,
    energies,
    exceedings,
    suspicious_share,
)
from torchbands.testing import toy


def test_energy_is_the_squared_sum_of_a_class_row_and_its_bias_as_a_share() -> None:
    update = torch.tensor([[1.0, 1.0, 0.0, -1.0, 1.0, 0.0]])
    weight, bias = torch.tensor([[0, 1], [2, 3]]), torch.tensor([4, 5])
    assert energies(update, weight, bias).tolist() == [pytest.approx([0.9, 0.1])], "3 and 1, squared"
    assert energies(update, weight, None).tolist() == [pytest.approx([0.8, 0.2])]


def test_who_has_at_most_half_the_classes_that_are_usual_is_suspicious() -> None:
    """Of 4 classes those count that are above a quarter of the largest: 4, 4, 4, 3, 2 and 1; the median is 3.5."""
    energy = torch.tensor(
        [[1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 2, 2], [4, 2, 2, 0.9], [4, 2, 1, 0.9], [4, 1, 1, 0.9]], dtype=torch.float64
    )
    assert exceedings(energy).tolist() == [False] * 5 + [True]


def test_a_cluster_answers_for_its_members_and_who_is_alone_for_himself() -> None:
    found, suspicious = torch.tensor([0, 0, 0, 1, 1, -1, -1]), torch.tensor([1, 0, 0, 1, 1, 1, 0]).bool()
    assert suspicious_share(found, suspicious).tolist() == pytest.approx([1 / 3] * 3 + [1, 1, 1, 0])


def test_where_there_is_no_cluster_all_are_alike() -> None:
    assert clusters_apart(torch.ones(6, 6) - torch.eye(6)).sum() == 0
    at = torch.cat([torch.linspace(0, 0.1, 5), torch.linspace(5, 5.1, 5), torch.tensor([50.0])])
    apart = clusters_apart((at[:, None] - at).abs())
    assert apart[0, :5].sum() == 0 and apart[0, 5:].sum() == 6 and apart[10, :10].sum() == 10 and apart[10, 10] == 0


def _round(colluders: int) -> Updates:
    """Twelve clients that move every class, of which the last ones move class 0 alone."""
    model, rng = toy("federated").fresh(0), torch.Generator().manual_seed(0)
    head, size = head_of(model), sum(p.numel() for p in model.module.parameters())
    assert head is not None and head.bias is not None
    weights = 0.1 + 0.01 * torch.randn(12, size, generator=rng)
    bad = slice(12 - colluders, 12)
    weights[bad, head.all()] = 0.0
    weights[bad, head.weight[0]] = 0.5 + 0.001 * torch.randn(colluders, head.weight.shape[1], generator=rng)
    weights[bad, head.bias[0]] = 0.5
    buffers = torch.arange(12.0)[:, None].expand(12, 16).contiguous()
    return Updates(weights, buffers, torch.arange(12), torch.full((12,), 10))


def test_colluders_who_move_one_class_are_left_out() -> None:
    sent = _round(colluders=5)
    start = torch.cat([p.detach().flatten() for p in toy("federated").fresh(0).module.parameters()])
    made = joined("deepsight", sent, start, samples=64)
    assert kept(made) == list(range(7)) and min(suspicion(made)[7:]) > max(suspicion(made)[:7])
    sizes = sent.weights.norm(dim=1)
    share = (sizes.quantile(0.5) / sizes).clamp_max(1)[:7, None]
    torch.testing.assert_close(made.weights, (share * sent.weights[:7]).mean(0), rtol=1e-4, atol=1e-6)
    assert made.buffers.tolist() == [3.0] * 16
    other = joined("deepsight", replace(sent, buffers=1e3 * torch.randn(12, 16)), start, samples=64)
    assert kept(other) == kept(made), "running statistics are in no distance"


def test_honest_clients_are_all_kept() -> None:
    assert kept(joined("deepsight", _round(colluders=0), torch.zeros(1476), samples=64)) == list(range(12))


def test_a_network_without_a_final_linear_layer_is_declined() -> None:
    model = toy("federated").fresh(0)
    rest = Model(nn.Sequential(model.module, nn.Softmax(1)), model.modality, model.classes)
    with pytest.raises(NotApplicable, match="ends in another"):
        DeepSight().start(rest)
