"""Too many pairs to search all: what stands out in one model is searched in all, and the p-value stays one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchbands.scanner.calibrate import Kind, compare
from torchbands.scanner.pairs import CHEAPEST, NOTHING, ask, cheapest, forward_of, nothing_asked, pooled

CLASSES, SEARCHED, REFERENCES = 20, 40, 19
KIND = Kind(reduce="either")


def _models(rng: torch.Generator, m: int) -> tuple[Tensor, Tensor]:
    """Exchangeable models: (m, K, K) what a search of every pair would find, and which pairs each chooses to search.
    Pairs differ by nature; what is near in one model is cheap there and chosen there."""
    near = torch.randn(CLASSES, CLASSES, generator=rng)
    each = near + torch.randn(m, CLASSES, CLASSES, generator=rng)
    shaky = 0.3 + torch.rand(CLASSES, CLASSES, generator=rng)
    found = near + 0.5 * torch.randn(near.shape, generator=rng) + 0.7 * (each - near)
    found = found + shaky * torch.randn(each.shape, generator=rng) + 0.5 * torch.randn(m, 1, 1, generator=rng)
    each.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    at = each.flatten(1).topk(SEARCHED, 1).indices
    return found, torch.zeros(m, CLASSES**2, dtype=torch.bool).scatter(1, at, True).view_as(found)


def _pool(found: Tensor, arms: Tensor, wanted: Tensor | None = None) -> Tensor:
    own = torch.where(arms, found, torch.nan)
    wanted = forward_of(own) if wanted is None else wanted
    return pooled(own, torch.where(wanted & ~arms, found, torch.nan))


def _share(draws: int, *, planted: bool, every: bool) -> float:
    """How often p <= 0.05. every: whether all models put pairs forward, or a view only searches its own."""
    rng, hits = torch.Generator().manual_seed(7), 0
    for _ in range(draws):
        found, arms = _models(rng, REFERENCES + 1)
        if planted:  # near in the suspect alone, and as cheap there as its cheapest pair
            elsewhere = arms[:-1].sum(0)
            elsewhere.fill_diagonal_(99)
            source, target = divmod(int(elsewhere.flatten().argmin()), CLASSES)
            found[-1, source, target] = found[-1][arms[-1]].max()
            arms[-1, source, target] = True
        pool = _pool(found, arms) if every else torch.where(arms, found, torch.nan)
        compared = compare({"pairs": pool}, {"pairs": KIND})
        hits += compared is not None and compared.p <= 1 / (REFERENCES + 1)
    return hits / draws


def test_p_of_a_clean_suspect_stays_valid() -> None:
    """400 draws at 1/20: the standard error is 0.011."""
    assert 0.01 <= _share(400, planted=False, every=True) <= 0.095


def test_asking_about_the_suspects_pairs_alone_would_give_false_alarms() -> None:
    """Why every reference puts its own pairs forward too: the suspect's are its cheapest by choice."""
    rng, hits = torch.Generator().manual_seed(7), 0
    for _ in range(200):
        found, arms = _models(rng, REFERENCES + 1)
        own = torch.where(arms, found, torch.nan)
        one_sided = torch.where(arms | cheapest(own)[-1], found, torch.nan)
        compared = compare({"pairs": one_sided}, {"pairs": KIND})
        hits += compared is not None and compared.p <= 1 / (REFERENCES + 1)
    assert hits / 200 > 0.12


def test_a_pair_that_only_the_backdoor_makes_near_is_compared() -> None:
    assert _share(100, planted=True, every=False) < 0.2 and _share(100, planted=True, every=True) > 0.5


def test_exchanging_two_models_exchanges_their_numbers() -> None:
    found, arms = _models(torch.Generator().manual_seed(1), 8)
    order = torch.tensor([7, 1, 2, 3, 4, 5, 6, 0])
    one, two = _pool(found, arms)[order], _pool(found[order], arms[order])
    assert torch.equal(one.nan_to_num(9.0), two.nan_to_num(9.0))


def test_what_was_asked_for_another_suspect_does_not_count() -> None:
    found, arms = _models(torch.Generator().manual_seed(2), 8)
    more = _pool(found, arms, torch.ones_like(arms[0]))
    assert torch.equal(more.isfinite(), _pool(found, arms).isfinite())
    assert more.isfinite().sum() < len(arms) * CLASSES * (CLASSES - 1)


def test_each_model_puts_its_cheapest_pairs_forward() -> None:
    own = torch.full((2, 5, 5), torch.nan)
    own[0, 1, 2], own[0, 3, 4], own[1, 0, 1] = -1.0, -2.0, -5.0
    assert cheapest(own)[0].nonzero().tolist() == [[1, 2], [3, 4]] and int(forward_of(own).sum()) == 3
    assert int(cheapest(torch.rand(9, 9)).sum()) == CHEAPEST
    assert int(cheapest(torch.full((3, 3), torch.nan)).sum()) == 0


class _Asked:
    """Answers with the number of the pair; nothing finite for sources of class 2."""

    def __init__(self) -> None:
        self.pairs: list[list[int]] = []

    def of_pairs(self, model: object, clean: object, pairs: Tensor, *, seed: int = 0) -> Tensor:
        self.pairs += pairs.tolist()
        return torch.where(pairs[:, 0] == 2, torch.nan, (10.0 * pairs[:, 0] + pairs[:, 1]))


@pytest.mark.parametrize("again", [False, True])
def test_a_model_is_asked_once_and_only_about_what_is_missing(again: bool) -> None:
    own, wanted, detector = torch.full((3, 3), torch.nan), torch.zeros(3, 3, dtype=torch.bool), _Asked()
    own[0, 1] = 7.0
    wanted[0, 1] = wanted[1, 2] = wanted[2, 0] = True
    asked = ask(detector, None, None, own, nothing_asked(own), wanted, seed=0)  # type: ignore[arg-type]
    if again:
        asked = ask(detector, None, None, own, asked, wanted, seed=0)  # type: ignore[arg-type]
    assert detector.pairs == [[1, 2], [2, 0]] and float(asked[1, 2]) == 12.0 and float(asked[2, 0]) == NOTHING
    pool = pooled(own[None], asked[None])[0]
    assert pool[0, 1] == 7.0 and pool[2, 0].isnan() and pool[1, 2].isnan(), "nobody put it forward"
