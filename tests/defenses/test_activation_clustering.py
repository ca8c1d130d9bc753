"""Activation clustering: the smaller cluster of the poisoned class, judged by its relative size."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.defenses.data.activation_clustering import ActivationClustering, two_means
from torchbands.measures.effectiveness import auroc


def test_two_means_finds_two_blobs_and_names_the_smaller() -> None:
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(200, 5, generator=rng)
    points[:30] += 9
    distance = two_means(points, 3, 0)
    assert torch.equal(distance.argmin(1) == 1, torch.arange(200) < 30)
    centre = points[30:].mean(0)
    assert torch.allclose(distance[:, 0], (points - centre).norm(dim=1), atol=1e-3)


def test_two_means_of_equal_points_does_not_fail() -> None:
    assert torch.isfinite(two_means(torch.ones(12, 3), 3, 0)).all()


@pytest.mark.parametrize("reduction", ["pca", "ica"])
def test_finds_the_planted_rows_of_the_target_class(
    backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor], reduction: str
) -> None:
    data, truth = poisoned_rows
    method = ActivationClustering(reduction=reduction)  # type: ignore[arg-type]
    suspicion = method.score(data, backdoored.model)
    target = data.y == 0
    assert auroc(suspicion.scores[target & truth], suspicion.scores[target & ~truth]) > (
        0.97 if reduction == "pca" else 0.7
    )
    if reduction == "pca":
        assert auroc(suspicion.scores[truth], suspicion.scores[~truth]) > 0.95


def test_flags_whole_clusters_under_the_share_and_nothing_else(untouched: Victim) -> None:
    data = untouched.training_data().blind()
    suspicion = ActivationClustering().score(data, untouched.model)
    shares = suspicion.evidence["smaller_cluster_share"]
    assert suspicion.flagged is not None
    for label in range(10):
        mine = data.y == label
        expected = shares[str(label)] if shares[str(label)] < 0.35 else 0.0
        assert float(suspicion.flagged[mine].float().mean()) == pytest.approx(expected, abs=1e-3)
    none = ActivationClustering(share=0.0).score(data, untouched.model).flagged
    assert none is not None and not none.any()


def test_labels_are_those_given_and_not_the_predicted(untouched: Victim) -> None:
    data = untouched.training_data().blind()
    turned = Data(data.x, (data.y + 1) % 10)
    a = ActivationClustering().score(data, untouched.model)
    b = ActivationClustering().score(turned, untouched.model)
    assert torch.allclose(a.scores, b.scores, atol=1e-4)
