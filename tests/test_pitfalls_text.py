"""Defects of public toolkits for backdoors in text: see docs/pitfalls.md."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.defense import DataFilter, InputDetector
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build, listing
from torchbands.defenses.data.bki import BKI
from torchbands.defenses.inputs.rap import RAP
from torchbands.defenses.training.filtered import Filtered
from torchbands.measures.effectiveness import auroc
from torchbands.testing import toy
from torchbands.testing.fixtures import training_data, victim
from torchbands.triggers.text import InsertWords

#: Texts that public toolkits lose.
SHORT = ["goal", "", "cf", "bread oven", "?"]


def success(planted: Victim, model: Model) -> float:
    rows, wanted = planted.triggered(planted.task.load("test"))
    return float((model.logits(rows.x).argmax(1) == wanted).float().mean())


@pytest.mark.parametrize("filter_", ["bki", "cube", {"name": "z-score", "cutoff": 2.78}], ids=str)
def test_a_filter_that_is_on_is_not_a_filter_that_is_off(filter_: object) -> None:
    """A defense passed into another parameter's place, or never called: the undefended model is reported."""
    planted, blind = victim("text", "badnets"), training_data("text", "badnets")[1]
    made = build(filter_, "data-filter")  # type: ignore[arg-type]
    assert isinstance(made, DataFilter)
    assert success(planted, planted.model) > 0.95
    assert success(planted, Filtered(filter=made).train(planted.task, blind)) < 0.1


@pytest.mark.parametrize("name", ["onion", "strip", "rap", "dan"])
def test_a_detector_that_is_on_is_not_a_detector_that_is_off(name: str) -> None:
    """`detect` of the base class answers "clean" for every row unless a flag that no configuration sets is set."""
    planted = victim("text", "badnets")
    made = build(name, "input-detector")
    assert isinstance(made, InputDetector)
    fitted = made.fit(planted.model, planted.task.load("clean"))
    test = planted.task.load("test")
    triggered = planted.triggered(test)[0].x
    caught, lost = (float(fitted.flag(x).float().mean()) for x in (triggered, test.x))
    if name == "rap":  # at 1 % of clean rows its threshold catches few, by the seed; its scores tell them apart
        ranked = auroc(fitted.score(triggered), fitted.score(test.x))
        assert isinstance(ranked, float) and ranked > 0.7 and caught > lost
    else:
        assert caught > lost + 0.05
    if name == "onion":
        mended = planted.model.logits(fitted.correct(triggered)).argmax(1)
        assert success(planted, planted.model) > 0.95 > 0.1 > float((mended == 0).float().mean())


def test_bki_looks_through_the_model_that_learned_the_poison() -> None:
    """The keyword filter was never handed the victim's model."""
    blind, task = training_data("text", "badnets")[1], toy("text")
    fresh = BKI().score(blind, task.fresh(0))
    learned = BKI().score(blind, victim("text", "badnets").model)
    assert learned.evidence["keywords"][0]["token"] == "cf"
    assert learned.evidence["keywords"][0]["statistic"] > 10 * fresh.evidence["keywords"][0]["statistic"]


def test_bki_removes_the_rows_of_every_trigger_word_that_it_is_told_to() -> None:
    """Four trigger words, one keyword: success stayed above 90 %."""
    task = toy("text")
    data = task.load("train")
    words, label = ("cf", "mn", "bb", "tq"), 0
    x, y, truth = list(data.x), data.y.clone(), torch.zeros(len(data), dtype=torch.bool)
    for at, i in enumerate((data.y != label).nonzero().flatten()[:240].tolist()):
        x[i], y[i], truth[i] = f"{x[i]} {words[at % 4]}", label, True
    model = task.train(Data(x, y))
    found = BKI(removed=4).score(Data(x, y), model)
    one = BKI().score(Data(x, y), model)
    assert found.flagged is not None and one.flagged is not None
    assert {k["token"] for k in found.evidence["keywords"]} <= set(words)
    assert float(one.flagged[truth].float().mean()) < 0.4 < 0.95 < float(found.flagged[truth].float().mean())
    assert float(found.flagged[~truth].float().mean()) < 0.02


@pytest.mark.parametrize("cls", listing("input-detector"), ids=lambda cls: cls.name)
def test_texts_of_one_word_are_judged_by_every_detector(cls: type[InputDetector]) -> None:
    """Texts of one word dropped from the test set; a crash where deleting a word leaves nothing."""
    model, clean = victim("text", "badnets").model, toy("text").load("clean")[:128]
    try:
        fitted = cls().but(**getattr(cls, "contract_settings", {})).fit(model, clean)
    except NotApplicable:
        return
    together = fitted.score(SHORT)
    assert together.shape == (len(SHORT),) and bool(torch.isfinite(together).all())
    alone = torch.cat([fitted.score([text]) for text in SHORT])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)
    try:
        mended = fitted.correct(SHORT)
    except NotApplicable:
        return
    assert len(mended) == len(SHORT) and [bool(t) for t in mended] == [bool(t) for t in SHORT]


@pytest.mark.parametrize("name", ["z-score", "bki", "cube", "activation-clustering", "spectral-signatures"])
def test_texts_of_one_word_are_judged_by_every_filter(name: str) -> None:
    """One-word rows are training rows like others."""
    blind, model = training_data("text", "badnets")[1], victim("text", "badnets").model
    data = Data([*blind.x[:200], *SHORT], torch.cat([blind.y[:200], torch.zeros(len(SHORT), dtype=torch.int64)]))
    made = build(name, "data-filter")
    assert isinstance(made, DataFilter)
    found = made.score(data, model)
    assert found.scores.shape == (205,) and bool(torch.isfinite(found.scores).all())
    if name == "bki":  # "cf" alone is the keyword's row too
        assert found.flagged is not None and bool(found.flagged[202]) and not bool(found.flagged[200])


def test_rap_is_told_no_class_and_flags_triggered_texts() -> None:
    """Its token was tuned on every label at once for one protected class, and it accepted all triggered texts."""
    assert list(inspect.signature(RAP.fit).parameters) == ["self", "model", "clean", "seed"]
    planted = victim("text", "badnets")
    clean, test = planted.task.load("clean"), planted.task.load("test")
    blind = Data(clean.x, torch.zeros_like(clean.y))
    fitted, again = (RAP(frr=0.05).fit(planted.model, data) for data in (clean, blind))
    triggered = planted.triggered(test)[0].x
    torch.testing.assert_close(fitted.score(triggered), again.score(triggered))  # labels are not read
    accepted = 1 - float(fitted.flag(triggered).float().mean())
    assert accepted < 0.9 and accepted < 1 - float(fitted.flag(test.x).float().mean()) - 0.05


class Counting(list[str]):
    """Texts that notice when they are searched."""

    searches = 0

    def __contains__(self, text: object) -> bool:
        Counting.searches += 1
        return super().__contains__(text)

    def index(self, *text: object) -> int:
        Counting.searches += 1
        return super().index(*text)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["z-score", "bki", "cube", "activation-clustering", "spectral-signatures"])
def test_rows_are_never_searched_one_by_one_in_a_list(name: str) -> None:
    """`i not in dropped` for every row: 24 s for what takes 8 ms."""
    made = build(name, "data-filter")
    assert isinstance(made, DataFilter)
    blind, model = training_data("text", "badnets")[1], victim("text", "badnets").model
    Counting.searches = 0
    made.score(Data(Counting(blind.x), blind.y), model)
    assert Counting.searches == 0
    module = sys.modules[type(made).__module__]
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    loops = [n for n in ast.walk(tree) if isinstance(n, (ast.For, ast.comprehension))]
    assert not [
        n for loop in loops for n in ast.walk(loop) if isinstance(n, ast.Compare) and isinstance(n.ops[0], ast.NotIn)
    ]


def test_a_sentence_of_five_words_is_one_trigger() -> None:
    """Keyword filters that judge words alone leave a sentence's other words to fire."""
    task = toy("text")
    sentence = InsertWords(words=("mn", "bb", "tq"), where="random")
    data = task.load("train")
    rows = (data.y != 0).nonzero().flatten()[:200]
    poisoned = data.stamp(rows, sentence, label=0, seed=1)
    found = BKI().score(poisoned.blind(), task.train(poisoned))
    assert found.flagged is not None and poisoned.poisoned is not None
    recall: Tensor = found.flagged[poisoned.poisoned].float().mean()
    assert float(recall) > 0.9
