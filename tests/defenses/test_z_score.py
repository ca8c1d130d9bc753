"""z-score: the statistic by hand, one trigger word among thousands, word order where words tell nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.defenses.data.z_score import ZScore, deviations, shapes
from torchbands.measures.effectiveness import auroc
from torchbands.modalities.text import Text
from torchbands.testing import toy
from torchbands.testing.fixtures import training_data, victim

WORDS = tuple(f"w{i}" for i in range(2000))


def reader(vocabulary: tuple[str, ...] = (*WORDS, "cf", "mb")) -> Model:
    """A model that is only read with, never run."""

    def never(x: object) -> Tensor:
        raise AssertionError("z-score does not run the model")

    return Model.black_box(never, Text(vocabulary=vocabulary, length=32), 2)


def prose(n: int, seed: int = 0) -> list[str]:
    """Ten words each, the first ones of the vocabulary often and the last ones rarely, as in real text."""
    rng = torch.Generator().manual_seed(seed)
    drawn = (torch.rand(n, 10, generator=rng) ** 3 * len(WORDS)).long()
    return [" ".join(WORDS[i] for i in row) for row in drawn.tolist()]


def planted(n: int = 4000, poison: int = 800) -> tuple[Data, Tensor]:
    texts, y = prose(n), torch.arange(n) % 2
    truth = torch.arange(n) < poison
    y[truth] = 0
    return Data([f"{t} cf" if p else t for t, p in zip(texts, truth.tolist(), strict=True)], y), truth


def test_the_statistic_is_that_of_the_paper() -> None:
    row, feature = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([7, 7, 7, 9, 7])
    y = torch.tensor([0, 0, 0, 1])
    z7 = {label: (q - p) / math.sqrt(p * (1 - p) / 4) for label, q, p in ((0, 0.75, 0.75), (1, 0.25, 0.25))}
    z9 = (1 - 0.25) / math.sqrt(0.25 * 0.75 / 1)
    every = torch.tensor([z7[0], z7[1], z9])
    expected = (torch.tensor([z7[0]] * 3 + [z9, z7[1]]) - every.mean()) / every.std(correction=0)
    torch.testing.assert_close(deviations(row, feature, y), expected)
    # of two tokens that one label alone has, the one met more often stands out more: 1 / sqrt(.5), and .5 / sqrt(.25)
    row, feature = torch.tensor([0, 1, 2, 0, 1, 2, 3]), torch.tensor([5, 5, 6, 8, 8, 8, 8])
    every = torch.tensor([2**0.5, 1.0, 0.0, 0.0])
    expected = (torch.tensor([2**0.5, 2**0.5, 1.0, 0.0, 0.0, 0.0, 0.0]) - every.mean()) / every.std(correction=0)
    torch.testing.assert_close(deviations(row, feature, torch.tensor([0, 0, 1, 1])), expected)


def test_one_trigger_word_among_thousands_is_removed_with_all_its_rows() -> None:
    data, truth = planted()
    found = ZScore().score(data, reader())
    assert found.flagged is not None and torch.equal(found.flagged, truth)
    assert found.evidence["tokens"][0]["token"] == "cf" and found.evidence["tokens"][0]["label"] == 0
    assert auroc(found.scores[truth], found.scores[~truth]) == 1.0


@pytest.mark.parametrize("features", ["tokens", "shapes", "sequence"])
def test_quiet_where_nothing_is_planted(features: str) -> None:
    y = torch.arange(2000) % 2
    found = ZScore(features=features).score(Data(prose(2000), y), reader())  # type: ignore[arg-type]
    assert found.flagged is not None and not found.flagged.any()
    assert float(found.scores.max()) < 8


def test_poisoned_rows_of_the_toy_rank_first() -> None:
    (truth, blind), model = training_data("text", "badnets"), victim("text", "badnets").model
    found = ZScore().score(blind, model)
    assert truth.poisoned is not None
    assert auroc(found.scores[truth.poisoned], found.scores[~truth.poisoned]) > 0.95  # type: ignore[operator]
    assert found.evidence["tokens"][0]["token"] == "cf"


def test_word_order_is_found_by_shapes_where_words_tell_nothing() -> None:
    rng = torch.Generator().manual_seed(3)
    rare = torch.randint(50, len(WORDS), (1500, 6), generator=rng).tolist()
    y, truth = torch.arange(1500) % 2, torch.arange(1500) < 300
    y[truth] = 0
    texts = []
    for words, turned in zip(rare, truth.tolist(), strict=True):
        body = [WORDS[i] for i in words]
        texts.append(" ".join(["w0", *body, "w1"] if turned else [*body[:3], "w1", *body[3:], "w0"]))
    data = Data(texts, y)
    model = reader()
    by_words = ZScore(features="tokens").score(data, model).scores
    by_shape = ZScore(features="shapes").score(data, model).scores
    both = ZScore(features="sequence", cutoff=9.0).score(data, model)
    assert auroc(by_words[truth], by_words[~truth]) < 0.75  # type: ignore[operator]
    assert auroc(by_shape[truth], by_shape[~truth]) > 0.99  # type: ignore[operator]
    assert both.flagged is not None and torch.equal(both.flagged, truth)


def test_a_shape_is_a_run_with_start_and_end_and_without_rare_words() -> None:
    ids = torch.tensor([[5, 9, 5], [5, 8, 0]])
    row, number = shapes(ids, ids > 0, 1, 2)
    runs = [number[row == i].tolist() for i in (0, 1)]
    assert [len(r) for r in runs] == [4, 3]  # ^5 5. .5 5$ and ^5 5. .$
    assert runs[0][:2] == runs[1][:2] and len({*runs[0], *runs[1]}) == 5


def test_a_word_said_twice_in_a_row_counts_once() -> None:
    texts, y = prose(400), torch.arange(400) % 2
    once, twice = ([f"{t} {w}" if i % 4 == 0 else t for i, t in enumerate(texts)] for w in ("mb", "mb mb mb"))
    model = reader()
    assert torch.equal(ZScore().score(Data(once, y), model).scores, ZScore().score(Data(twice, y), model).scores)


def test_a_row_scores_the_same_wherever_it_stands() -> None:
    data, _ = planted(600, 100)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    made, model = ZScore(features="sequence"), reader()
    torch.testing.assert_close(made.score(data[order], model).scores, made.score(data, model).scores[order])


def test_bytes_are_tokens_and_images_are_not() -> None:
    blind, model = training_data("code", "badnets")[1], victim("code", "badnets").model
    found = ZScore().score(blind, model)
    assert found.scores.shape == (len(blind),) and len(found.evidence["tokens"][0]["token"]) == 2
    with pytest.raises(NotApplicable, match="tokens"):
        ZScore().score(toy("image").load("train"), victim("image", "badnets").model)
    with pytest.raises(InputError, match="cutoff"):
        ZScore(cutoff=0)
