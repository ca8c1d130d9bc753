"""What single tokens do: found by name on planted backdoors, the same as in other models on never-poisoned ones."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from torchbands.core.attack import Attack, Victim
from torchbands.core.defense import Finding, ModelDetector
from torchbands.core.errors import NotApplicable
from torchbands.core.registry import build
from torchbands.defenses.models._inversion import token_writer
from torchbands.defenses.models.token_effects import TokenEffects, _odds, _short
from torchbands.defenses.models.token_search import TokenSearch
from torchbands.scanner.calibrate import Kind, standard_scores
from torchbands.testing import toy


@lru_cache(maxsize=16)
def victim(attack: str, seed: int) -> Victim:
    made = build({"role": "attack", "name": attack, **({"rate": 0.1, "target": 2} if attack != "clean" else {})})
    assert isinstance(made, Attack)
    return made.run(toy("text"), seed)


def look(detector: ModelDetector, planted: Victim) -> Finding:
    return detector.inspect(planted.model, planted.task.load("clean").sample(200, "test", balanced=True))


def test_the_planted_word_is_the_one_that_no_other_model_gives_its_effect() -> None:
    detector = TokenEffects()
    pool = [look(detector, victim("clean", seed)).per_trigger for seed in range(7)]
    found = look(detector, victim("badnets", 1))
    assert found.per_trigger is not None and found.insertion is not None
    z = standard_scores(torch.stack([*pool, found.per_trigger]), Kind(centre=False))[-1].view_as(found.per_trigger)
    token, target = divmod(int(z.argmax()), z.shape[1])
    trigger = found.insertion([token])
    assert target == 2
    assert set(trigger.words) == set(victim("badnets", 1).trigger.words)
    other = look(detector, victim("clean", 8)).per_trigger
    assert other is not None
    quiet = standard_scores(torch.stack([*pool, other]), Kind(centre=False))[-1]
    assert float(quiet.max()) < 0.5 * float(z.max())


def test_effects_are_those_of_writing_the_word_on_the_sample() -> None:
    planted = victim("badnets", 1)
    found = look(TokenEffects(rows=1, precision="float32"), planted)
    assert found.per_trigger is not None and found.insertion is not None
    assert found.per_trigger.shape[1] == planted.task.classes and found.per_trigger.isfinite().all()
    token = int(found.per_trigger[:, 2].argmax())
    words = found.insertion([token]).words
    rows = planted.task.load("clean").sample(64, "written", balanced=True)
    before = planted.model.logits(rows.x).argmax(1)
    after = planted.model.logits([" ".join([*words, text]) for text in rows.x]).argmax(1)
    assert float((after == 2).float().mean()) > 0.9 > float((before == 2).float().mean())


def test_an_effect_is_a_change_of_log_odds() -> None:
    model = victim("badnets", 1).model.at_precision("float32")
    writer, rows = token_writer(TokenEffects(), model), toy("text").load("clean").sample(40, "test", balanced=True)
    with torch.no_grad():
        e = _short(model, rows, 4)
        effects = TokenEffects()._effects(model, writer, e)
        words = torch.full((4, len(writer.free)), 5)
        after = _odds(model.logits_at(writer.insert(e, writer.table[words], words)))
        torch.testing.assert_close(effects[5], (after - _odds(model.logits_at(e))).mean(0), atol=1e-4, rtol=1e-3)
    assert torch.allclose(_odds(torch.tensor([[0.0, 0.0], [3.0, 0.0]])), torch.tensor([[0.0, 0.0], [3.0, -3.0]]))


def test_no_more_passes_than_were_allowed() -> None:
    planted = victim("clean", 0)
    size = len(planted.model.modality.vocabulary) + 1
    before = planted.model.passes.forward
    found = look(TokenEffects(passes=2 * size + 1), planted)
    assert found.evidence["rows"] == 2
    assert planted.model.passes.forward - before <= 2 * size + 2


def test_the_search_finds_the_word_for_its_class_only() -> None:
    found, quiet = look(TokenSearch(), victim("badnets", 1)), look(TokenSearch(), victim("clean", 0))
    assert found.target == 2 and found.trigger is not None and found.per_class is not None
    assert set(victim("badnets", 1).trigger.words) & set(found.trigger.words)
    assert found.score > 2 * quiet.score


@pytest.mark.parametrize("name", ["token-search", "token-effects"])
def test_samples_without_tokens_are_declined(name: str, clean_victim: Victim) -> None:
    detector = build(name, "model-detector")
    assert isinstance(detector, ModelDetector)
    with pytest.raises(NotApplicable, match="not made of tokens"):
        detector.inspect(clean_victim.model, clean_victim.task.load("clean"))
