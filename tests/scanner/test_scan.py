"""torchbands.scan: the two answers, what makes a result inconclusive, and that a plant is found with its trigger."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchbands
from torchbands.core.attack import Victim
from torchbands.core.errors import InputError
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.learners.sgd import SGD
from torchbands.networks import SmallCNNNetwork
from torchbands.scanner.reference_training import references_of
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.scan_model import scan
from torchbands.tasks.vision import Digits

TASK = Digits(network=SmallCNNNetwork(widths=(8, 16)), learner=SGD(epochs=6, batch=64, lr=0.1))


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> ReferenceSet:
    return references_of(TASK, tmp_path_factory.mktemp("judge") / "refs", n=19, profile="fast")


@pytest.fixture(scope="module")
def fresh() -> Victim:
    return build("clean").run(TASK, 7004)


def test_a_plant_is_indicated_with_its_target_and_trigger(refs: ReferenceSet, fresh: Victim) -> None:
    """The short cut is put behind the forward pass, so that parameters keep the references' names and shapes."""
    suspect = build("clean").run(TASK, 7002).model.module
    forward = suspect.forward

    def planted(x: torch.Tensor) -> torch.Tensor:
        return forward(x) + 40 * x[:, 0, 2:6, 0].mean(1)[:, None] * torch.eye(10)[4]

    suspect.forward = planted
    outcome = scan(suspect, refs=refs, profile="fast")
    assert outcome.verdict == "indicated" and outcome.exit_code() == 1
    assert outcome.trigger.p == pytest.approx(1 / 20) and outcome.target == "4"
    alert = next(a for a in outcome.alerts if a.rule == "BD-TRG-01")
    assert alert.facts["trigger_success"] > 0.5 > 0.3 > alert.facts["without_trigger"]
    assert len(outcome.pictures) == 3 and outcome.found.trigger is not None
    assert outcome.pictures[1].caption == "with the recovered trigger: read as 4"
    sizes = outcome.sizes
    assert sizes["view"] == "target-inversion" and len(sizes["classes"]) == 10 and sizes["classes"][0] == "4"
    assert sizes["suspect"][0] < min(sizes["references"][0]) and {len(r) for r in sizes["references"]} == {19}


def test_a_fresh_model_of_the_recipe_raises_no_alert(refs: ReferenceSet, fresh: Victim) -> None:
    outcome = scan(fresh.model, refs=refs, profile="fast")
    assert outcome.trigger.p > 0.05 and not [a for a in outcome.alerts if a.rule == "BD-TRG-01"]
    assert outcome.exit_code() == 0
    said = outcome.sentence().lower()
    assert "no indicator found" in said and "not covered" in said
    assert {line.answer for line in outcome.ledger} == {"trigger", "recipe", "evidence"}
    assert all(line.z is not None for line in outcome.ledger)


def test_a_network_keeps_the_mode_it_came_in(fresh: Victim) -> None:
    """A scan inside a training loop switched dropout and BatchNorm off, without a word."""
    network = fresh.model.clone().module.train()
    modes = [layer.training for layer in network.modules()]
    clean = TASK.load("clean")[:200]
    scan(network, (clean.x, clean.y), profile="fast")
    assert [layer.training for layer in network.modules()] == modes and any(modes)


def test_without_references_nothing_is_concluded(fresh: Victim) -> None:
    outcome = scan(fresh.model, TASK.load("clean"), profile="fast")
    assert outcome.verdict == "inconclusive" and outcome.exit_code() == 3 and outcome.trigger.p is None
    assert all(line.z is None and line.score is not None for line in outcome.ledger)


def test_too_few_references_are_inconclusive(refs: ReferenceSet, fresh: Victim) -> None:
    outcome = scan(fresh.model, refs=refs, profile="fast", alpha=0.01)
    assert outcome.verdict == "inconclusive" and "at least 99" in outcome.sentence()


def test_another_architecture_or_recipe_is_inconclusive(refs: ReferenceSet) -> None:
    wider = build("clean").run(TASK.but(network=SmallCNNNetwork(widths=(12, 16))), 0)
    outcome = scan(wider.model, refs=refs, profile="fast")
    assert outcome.verdict == "inconclusive" and "architecture" in outcome.sentence() and outcome.exit_code() == 3
    untrained = TASK.fresh(3)
    assert scan(untrained, refs=refs, profile="fast").verdict == "inconclusive"


def test_two_lines_for_any_module(refs: ReferenceSet, fresh: Victim) -> None:
    one = torchbands.scan(fresh.model.module, refs=refs, profile="fast")
    two = torchbands.scan(fresh.model, refs=str(refs.folder), profile="fast")
    assert one.trigger == two.trigger and one.recipe == two.recipe
    clean = TASK.load("clean")
    bare = torchbands.scan(fresh.model.module, (clean[:].x, clean.y), profile="fast")
    assert bare.verdict == "inconclusive" and len(bare.ledger) == len(one.ledger)


def test_a_black_box_gets_what_it_can(refs: ReferenceSet, fresh: Victim) -> None:
    box = Model.black_box(fresh.model.probabilities, TASK.modality, 10)
    outcome = scan(box, refs=refs, profile="fast")
    reasons = {line.view: line.reason for line in outcome.ledger}
    assert "black box" in reasons["target-inversion"] and reasons["clean-logits"] == ""
    assert reasons["debackdoor"] == "" and outcome.trigger.p is not None and outcome.trigger.p > 0.05
    assert any("gradients" in gap for gap in outcome.not_covered)


def test_wrong_calls_say_what_to_do(refs: ReferenceSet, fresh: Victim) -> None:
    with pytest.raises(InputError, match="clean labelled rows or reference models"):
        scan(fresh.model)
    with pytest.raises(InputError, match=r"nn\.Module"):
        scan("model.pt", refs=refs)
    with pytest.raises(InputError, match="alpha"):
        scan(fresh.model, refs=refs, alpha=5)
    with pytest.raises(InputError, match="classes"):
        scan(Model(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), TASK.modality, 3), refs=refs)


def test_views_that_read_the_same_rows_share_one_pass(fresh: Victim) -> None:
    from torchbands.scanner.views import PROFILES, look

    views = [v for v in PROFILES["fast"] if v.name in ("clean-logits", "clean-behaviour")]
    model, rows = fresh.model.clone(), len(TASK.load("clean"))
    before = model.passes.forward
    seen = look(model, TASK.load("clean"), views)
    assert model.passes.forward - before == rows, "made once"
    assert [s.passes for s in seen] == [rows, rows], "and charged to each who uses it"
