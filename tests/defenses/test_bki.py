"""bki: the impact of a deletion, the keyword of the backdoor, and few rows lost where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.defenses.data.bki import BKI, impacts, keywords
from torchbands.measures.cost import measured
from torchbands.measures.effectiveness import auroc
from torchbands.testing import toy
from torchbands.testing.fixtures import training_data, victim


def truth_of(name: str, rate: float = 0.2) -> Tensor:
    poisoned = training_data(name, "badnets", rate)[0].poisoned
    assert poisoned is not None
    return poisoned


@pytest.mark.parametrize("rate", [0.2, 0.03])
def test_the_trigger_word_is_the_keyword_and_its_rows_are_removed(rate: float) -> None:
    blind, truth = training_data("text", "badnets", rate)[1], truth_of("text", rate)
    found = BKI().score(blind, victim("text", "badnets", rate).model)
    assert found.evidence["keywords"][0]["token"] == "cf" and found.evidence["keywords"][0]["label"] == 0
    assert found.flagged is not None
    assert float(found.flagged[truth].float().mean()) > 0.95
    assert float(found.flagged[~truth].float().mean()) < 0.01
    assert auroc(found.scores[truth], found.scores[~truth]) > 0.97  # type: ignore[operator]


def test_few_rows_are_lost_where_nothing_is_planted() -> None:
    data = victim("text", "clean").training_data().blind()
    found = BKI().score(data, victim("text", "clean").model)
    assert found.flagged is not None and float(found.flagged.float().mean()) < 0.1
    first, second = (k["statistic"] for k in found.evidence["keywords"][:2])
    assert first < 1.5 * second, "no word stands apart"
    planted = BKI().score(training_data("text", "badnets")[1], victim("text", "badnets").model).evidence["keywords"]
    assert planted[0]["statistic"] > 2 * planted[1]["statistic"]


def test_impact_is_the_largest_change_of_a_feature_when_the_word_is_taken_out() -> None:
    model, texts = victim("text", "badnets").model, ["goal the cf match", "bread", "oven of flour"]
    e = model.modality.encode(texts)
    assert e.mask is not None
    row, place = e.mask.nonzero(as_tuple=True)
    features = model.outputs(texts).features
    found = impacts(model, e, features, row, place)
    for i, (r, p) in enumerate(zip(row.tolist(), place.tolist(), strict=True)):
        words = texts[r].split()
        if len(words) == 1:
            assert float(found[i]) == 0.0
            continue
        shorter = model.outputs([" ".join(words[:p] + words[p + 1 :])]).features[0]
        assert float(found[i]) == pytest.approx(float((shorter - features[r]).abs().max()), abs=1e-4)


def test_keywords_of_a_row_are_its_tokens_of_largest_impact_each_once() -> None:
    row = torch.tensor([0, 0, 0, 0, 1])
    token = torch.tensor([5, 6, 5, 7, 9])
    found = keywords(row, token, torch.tensor([0.1, 0.4, 0.9, 0.2, 0.0]), 2)
    assert [t.tolist() for t in found[:2]] == [[0, 0, 1], [5, 6, 9]]
    torch.testing.assert_close(found[2], torch.tensor([0.9, 0.4, 0.0]))


def test_one_pass_per_token_and_none_for_what_others_read_already() -> None:
    model, data = victim("text", "badnets").model.clone(), training_data("text", "badnets")[1][:100]
    tokens = sum(min(len(text.split()), 24) for text in data.x)
    with model.shared(), measured(model) as cost:
        model.outputs(data.x)
        BKI().score(data, model)
    assert tokens <= cost.forward_passes <= tokens + len(data) + 2


def test_a_row_scores_the_same_wherever_it_stands() -> None:
    model, data = victim("text", "badnets").model, training_data("text", "badnets")[1][:200]
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    straight, turned = BKI().score(data, model), BKI().score(data[order], model)
    torch.testing.assert_close(turned.scores, straight.scores[order], atol=1e-4, rtol=1e-4)


def test_machine_code_is_served_and_images_are_declined() -> None:
    found = BKI().score(training_data("code", "badnets")[1], victim("code", "badnets").model)
    truth = truth_of("code")
    assert auroc(found.scores[truth], found.scores[~truth]) > 0.9  # type: ignore[operator]
    with pytest.raises(NotApplicable, match="tokens"):
        BKI().score(toy("image").load("train"), victim("image", "badnets").model)
    with pytest.raises(InputError, match="at least 1"):
        BKI(words=0)


def test_empty_and_single_words_alone_are_no_reason_to_fail() -> None:
    data = Data(["", "goal", ""], torch.tensor([0, 1, 1]))
    found = BKI().score(data, victim("text", "badnets").model)
    assert found.scores.tolist() == [0.0, 0.0, 0.0]
