"""A text classifier with a backdoor is told by the word that leads to it, and the report shows the word."""

from __future__ import annotations

import pytest

from torchbands.core.attack import Attack, Victim
from torchbands.core.registry import build
from torchbands.report.scan import render
from torchbands.scanner.reference_training import references_of
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.scan_model import scan
from torchbands.scanner.views import white_box
from torchbands.testing import toy


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    return references_of(toy("text"), tmp_path_factory.mktemp("texts") / "refs", n=9, profile="fast")


def victim(attack: str, seed: int) -> Victim:
    made = build({"role": "attack", "name": attack, **({"target": 3, "rate": 0.05} if attack != "clean" else {})})
    assert isinstance(made, Attack)
    return made.run(toy("text"), seed)


def test_the_word_is_named_in_the_alert_and_shown(references: ReferenceSet) -> None:
    planted = victim("badnets", 23)
    outcome = scan(planted.model, refs=references, profile="fast", alpha=0.1)
    (word,) = planted.trigger.words
    assert outcome.verdict == "indicated" and outcome.target == "3"
    assert word in outcome.alerts[0].facts["words"].split() and repr(word)[1:-1] in outcome.alerts[0].message
    assert any(f"<mark>{word}</mark>" in picture.html for picture in outcome.pictures)
    assert word in render(outcome, "html")


def test_a_never_poisoned_one_is_not_accused(references: ReferenceSet) -> None:
    found = [scan(victim("clean", seed).model, refs=references, profile="fast", alpha=0.1) for seed in (31, 32, 33)]
    lines = [next(line for line in o.ledger if line.view == "token-effects") for o in found]
    planted = scan(victim("badnets", 22).model, refs=references, profile="fast", alpha=0.1)
    theirs = next(line for line in planted.ledger if line.view == "token-effects")
    assert theirs.z is not None and all(line.z is not None and line.z < theirs.z / 2 for line in lines)


def test_samples_of_tokens_and_others_have_views_of_their_own() -> None:
    for profile in ("fast", "full"):
        words = {v.name for v in white_box(profile, tokens=True)}
        pixels = {v.name for v in white_box(profile, tokens=False)}
        assert "token-effects" in words - pixels and "target-inversion" in pixels - words
        assert "universal-perturbation" in words & pixels
