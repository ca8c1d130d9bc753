"""cube: dense clusters, rows between them, the share of a label that is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.defenses.data.cube import CUBE
from torchbands.measures.cost import measured
from torchbands.measures.effectiveness import auroc
from torchbands.modalities.observation import Observation
from torchbands.testing.fixtures import training_data, victim


def blobs(*sizes: int) -> Tensor:
    """Dense groups far from each other, and three rows nearer to the last one than to the others."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.cat([torch.randn(n, 6, generator=rng) + 30 * torch.eye(6)[i] for i, n in enumerate(sizes)])
    return torch.cat([rows, 20 * torch.eye(6)[len(sizes) - 1] + torch.randn(3, 6, generator=rng)])


def test_rows_between_clusters_join_the_nearest() -> None:
    part, centres = CUBE()._clusters(blobs(300, 200, 80), 30)
    assert centres.shape == (3, 6) and int(part.min()) == 0
    assert [len(part[a:b].unique()) for a, b in ((0, 300), (300, 500), (500, 583))] == [1, 1, 1]
    assert len({int(part[0]), int(part[300]), int(part[500])}) == 3


def test_of_many_rows_some_are_clustered_and_the_others_join_them() -> None:
    rows = blobs(3000, 2000, 800)
    part, centres = CUBE(most=580)._clusters(rows, 30)
    assert len(centres) == 3
    for a, b in ((0, 3000), (3000, 5000), (5000, 5800)):
        assert len(part[a:b].unique()) == 1
    assert torch.equal(part, CUBE(most=580)._clusters(rows, 30)[0])


def test_where_nothing_is_dense_all_rows_are_one_cluster() -> None:
    part, centres = CUBE()._clusters(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), 20)
    assert part.tolist() == [0] * 9 and centres.shape == (1, 4)


@pytest.mark.parametrize("name", ["image", "text", "tabular", "observation", "code"])
def test_poisoned_rows_rank_first_in_every_domain(name: str) -> None:
    (truth, blind), model = training_data(name, "badnets"), victim(name, "badnets").model
    assert truth.poisoned is not None
    found = CUBE().score(blind, model)
    assert auroc(found.scores[truth.poisoned], found.scores[~truth.poisoned]) > 0.9  # type: ignore[operator]


def test_most_poison_of_real_images_is_removed_and_little_else(
    backdoored: Victim, poisoned_rows: tuple[Data, Tensor]
) -> None:
    data, truth = poisoned_rows
    found = CUBE().score(data, backdoored.model)
    assert found.flagged is not None
    assert float(found.flagged[truth].float().mean()) > 0.9
    assert float(found.flagged[~truth].float().mean()) < 0.1
    assert len(found.evidence["rows_per_cluster"]["0"]) > 1


@pytest.mark.parametrize("name", ["image", "text"])
def test_quiet_where_nothing_is_planted(name: str) -> None:
    clean = victim(name, "clean")
    found = CUBE().score(clean.training_data().blind(), clean.model)
    assert found.flagged is not None and float(found.flagged.float().mean()) < 0.05


def test_a_cluster_of_half_of_its_label_or_more_is_no_poison() -> None:
    data = training_data("text", "badnets")[1]
    found = CUBE().score(data, victim("text", "badnets").model)
    assert found.flagged is not None
    for label in range(4):
        assert float(found.flagged[data.y == label].float().mean()) <= 0.5


def test_a_group_of_just_half_of_its_label_stays() -> None:
    """Two labels of 200 rows: one in two equal groups, one in groups of 120 and 80, of which the smaller is poison."""
    rng = torch.Generator().manual_seed(0)
    centres = 30 * torch.eye(6)[:4].repeat_interleave(torch.tensor([100, 100, 120, 80]), 0)
    x, y = centres + torch.randn(400, 6, generator=rng), torch.arange(400) // 200
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), Observation(shape=(6,)), 2)
    found = CUBE().score(Data(x, y), model)
    assert found.flagged is not None and found.evidence["rows_per_cluster"] == {"0": [100, 100], "1": [120, 80]}
    assert not found.flagged[:320].any() and bool(found.flagged[320:].all())


def test_features_are_those_that_other_filters_read_already() -> None:
    model, data = victim("text", "badnets").model.clone(), training_data("text", "badnets")[1]
    with model.shared(), measured(model) as cost:
        model.outputs(data.x)
        CUBE().score(data, model)
    assert cost.forward_passes == len(data)


def test_what_it_cannot_serve() -> None:
    model, data = victim("text", "badnets").model, training_data("text", "badnets")[1][:20]
    assert CUBE().score(data, model).scores.shape == (20,)
    with pytest.raises(NotApplicable, match="features"):
        CUBE().score(data, Model.black_box(model.probabilities, model.modality, model.classes))
    with pytest.raises(InputError, match="neighbours"):
        CUBE(neighbours=0)
