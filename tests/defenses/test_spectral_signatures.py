"""Spectral signatures: centred, one singular vector per class, oriented, and blind to nothing it needs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.defenses.data.spectral_signatures import SpectralSignatures
from torchbands.defenses.data.subspace import principal
from torchbands.measures.effectiveness import auroc


@pytest.mark.parametrize("shape", [(300, 40), (300, 700), (50, 700)])
def test_leading_directions_equal_a_full_decomposition(shape: tuple[int, int]) -> None:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, shape[1])
    rows = rows - rows.mean(0)
    true = torch.linalg.svd(rows, full_matrices=False).Vh[:3]
    found = principal(rows, 3).T
    assert (true * found).sum(1).abs().min() > 0.999
    assert torch.allclose(found @ found.T, torch.eye(3), atol=1e-4)


def test_paper_score_is_the_centred_squared_projection(
    backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor]
) -> None:
    data, _ = poisoned_rows
    scores = SpectralSignatures().score(data, backdoored.model).scores
    features = backdoored.model.outputs(data.x).features
    for label in (0, 3):
        mine = features[data.y == label]
        centred = mine - mine.mean(0)
        expected = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]).square()
        assert torch.allclose(scores[data.y == label], expected, rtol=0.02, atol=0.02)
        uncentred = (mine @ torch.linalg.svd(mine, full_matrices=False).Vh[0]).square()
        assert not torch.allclose(scores[data.y == label], uncentred, rtol=0.02, atol=0.02)


class Given:
    """A model whose features are the rows."""

    capabilities = frozenset({"features"})
    outputs = staticmethod(lambda x: SimpleNamespace(features=x))


def test_the_signal_is_not_the_unit_it_is_measured_in() -> None:
    """A class of which nearly half is poison is spread wide by it, and divided by that spread it looks like the others;
    so do rows of a class that lies closer together than others do."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(600, 4, generator=rng)
    y = torch.arange(600) // 200
    truth = torch.arange(600) < 90
    x[truth] += 20.0
    x[y == 2] /= 100
    for rule in ("paper", "oriented"):
        scores = SpectralSignatures(rule=rule).score(Data(x, y), Given()).scores  # type: ignore[arg-type]
        assert auroc(scores[truth], scores[~truth & (y > 0)]) == 1.0
        assert float(scores[y == 2].abs().max()) < float(scores[y == 1].abs().max())


def test_finds_the_planted_rows(backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor]) -> None:
    data, truth = poisoned_rows
    target = data.y == 0
    found = {}
    for rule in ("paper", "oriented"):
        suspicion = SpectralSignatures(rule=rule).score(data, backdoored.model)
        found[rule] = auroc(suspicion.scores[target & truth], suspicion.scores[target & ~truth])
    assert found["paper"] > 0.9
    assert found["oriented"] > 0.97
    overall = SpectralSignatures(rule="oriented").score(data, backdoored.model).scores
    assert auroc(overall[truth], overall[~truth]) > 0.97


def test_removes_one_and_a_half_epsilon_of_each_class_and_never_more_than_half(
    untouched: Victim,
) -> None:
    data = untouched.training_data().blind()
    for epsilon, share in ((0.1, 0.15), (0.9, 0.5)):
        flagged = SpectralSignatures(epsilon=epsilon).score(data, untouched.model).flagged
        assert flagged is not None and flagged.dtype == torch.bool and flagged.shape == (len(data),)
        for label in range(10):
            mine = flagged[data.y == label]
            assert int(mine.sum()) == int(share * len(mine))
    with pytest.raises(InputError, match="epsilon"):
        SpectralSignatures(epsilon=0.0)


def test_a_row_scores_the_same_wherever_it_stands(backdoored: Victim, poisoned_rows: tuple[Data, torch.Tensor]) -> None:
    data, _ = poisoned_rows
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    straight = SpectralSignatures(rule="oriented").score(data, backdoored.model).scores
    shuffled = SpectralSignatures(rule="oriented").score(data[order], backdoored.model).scores
    assert torch.allclose(straight[order], shuffled, rtol=0.02, atol=0.05)


def test_a_class_of_one_row_is_not_suspicious(untouched: Victim) -> None:
    data = untouched.training_data()[torch.arange(40)]
    alone = Data(data.x, torch.cat([torch.zeros(39), torch.ones(1)]).long())
    suspicion = SpectralSignatures().score(alone, untouched.model)
    assert float(suspicion.scores[-1]) == 0.0
    assert suspicion.flagged is not None and not bool(suspicion.flagged[-1])
