"""A view's time is told before it starts, from what it asks of the model and one timed step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from torchbands.core.defense import ModelDetector
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.scanner.forecast import announced, forecast, in_words, pace
from torchbands.scanner.scan_model import scan
from torchbands.scanner.views import PROFILES, views_of
from torchbands.testing.toys import toy

#: Short enough for a test, of as many steps as they take.
SHORT = {
    "target-inversion": {"rows": 4, "steps": 5},
    "pairwise-inversion": {"rows": 3, "steps": 4, "pairs": 5},
    "universal-perturbation": {"rows": 4, "steps": 5, "threshold": 1.0},
    "input-margin": {"inputs": 3, "steps": 4},
    "token-effects": {"rows": 3},
    "token-search": {"rows": 3, "rounds": 2, "shortlist": 5},
    "debackdoor": {"passes": 2000, "rows": 8},
}


def short(profile: str) -> list[ModelDetector]:
    return [view.detector.but(**SHORT.get(view.name, {})) for view in PROFILES[profile]]


@pytest.mark.parametrize("kind", ["image", "text"])
def test_every_view_says_what_it_asks_of_the_model(kind: str) -> None:
    task = toy(kind)
    model, clean = task.fresh(0), task.load("clean")
    looked = 0
    for detector in short("full"):
        if detector.name in {v.name for v in views_of("full", model)} or detector.name == "debackdoor":
            rows = clean.sample(detector.clean_needed(), "view", 0, balanced=True) if detector.clean_needed() else clean
            said = detector.work(model, min(len(rows), detector.clean_needed()))
            fresh = model.clone()
            fresh.passes = type(model.passes)()
            try:
                detector.inspect(fresh, rows, seed=0)
            except NotApplicable:
                continue
            spent, looked = fresh.passes.forward, looked + 1
            assert 0.7 * sum(said) <= spent <= 1.05 * sum(said), (detector.name, said, spent)
    assert looked >= 6


def test_the_timed_step_is_nobodys_and_leaves_no_trace() -> None:
    task = toy("image")
    model, clean = task.fresh(0), task.load("clean")
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    for gradients in (False, True):
        assert 0 < pace(model, clean, gradients=gradients) < 10
    assert model.passes.forward == 0
    assert all(torch.equal(t, before[name]) for name, t in model.module.state_dict().items())
    box = Model.black_box(model.probabilities, model.modality, model.classes)
    assert 0 < pace(box, clean, gradients=False) < 10 and box.passes.forward == 0


def test_more_work_takes_longer_and_views_that_ask_nothing_have_no_time() -> None:
    task = toy("image")
    model, clean = task.fresh(0), task.load("clean")
    every = {d.name: d for d in short("full")}
    few, many, none, foreign = forecast(
        model,
        clean,
        [
            every["target-inversion"].but(steps=10),
            every["target-inversion"].but(steps=1000),
            every["weight-spectrum"],
            every["token-search"],
        ],
    )
    assert few is not None and many is not None and 20 * few < many
    assert none is None and foreign is None


def test_a_scan_announces_its_time_first() -> None:
    task, said = toy("image"), []
    model, clean = task.fresh(0), task.load("clean")
    clean = replace(clean, y=model.logits(clean.x).argmax(1))  # it knows its rows
    scan(model, clean, profile="fast", announce=said.append)
    assert len(said) == 1 and said[0].startswith(("looking will take about ", "looking will take under "))
    assert all(name in said[0] for name in ("target-inversion", "universal-perturbation"))


def test_in_words() -> None:
    given = (0.2, 40.4, 89, 91, 240, 3 * 3600, 7800, 20 * 3600, 72 * 3600)
    words = ["under 1 s", "40 s", "89 s", "2 min", "4 min", "3 h", "2 h 10 min", "20 h", "3 days"]
    assert [in_words(s) for s in given] == words
    assert announced(["a", "b", "c"], [2.0, None, 3.0]) == "looking will take about 5 s: a 2 s, c 3 s"
    assert announced(["b"], [None]) == ""
