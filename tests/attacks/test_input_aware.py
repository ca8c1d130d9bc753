"""Input-aware: learned generators that are saved with the trigger, each image its own pattern."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_planting import Plant, Planted, took

from torchbands.attacks.input_aware import InputAware, JointTraining, diversity
from torchbands.core.errors import InputError
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.triggers.generated import Generated, harden, write
from torchbands.zoo.victims import load, save

pytestmark = pytest.mark.timeout(600)  # the generators take about 5 CPU seconds: long on a crowded machine


@pytest.fixture(scope="module")
def planted(plant: Plant) -> Planted:
    """8x8 images are 64 pixels: two are too few for a mask, so the density is 20 %, and the rate is doubled."""
    return plant("input-aware", mask_density=0.2, mask_steps=60, depth=1, rate=0.2)


def test_takes(planted: Planted) -> None:
    took(planted, asr=0.8, drop=0.05)


def test_every_image_has_its_own_trigger_within_a_sparse_mask(planted: Planted, digits: Task) -> None:
    trigger = planted.victim.trigger
    assert isinstance(trigger, Generated)
    x = digits.load("test")[:200].x
    pattern, mask = trigger.networks(torch.device("cpu"))
    with torch.no_grad():
        patterns, masks = pattern(x), harden(mask(x))
    assert float(masks.mean()) < 0.35
    assert float(masks.std(0).max()) > 0.05 and float(patterns.std(0).max()) > 0.05


def test_another_images_trigger_works_less(planted: Planted, digits: Task) -> None:
    victim = planted.victim
    assert isinstance(victim.trigger, Generated)
    test = digits.load("test")
    rows = test[test.y != 0]
    pattern, mask = victim.trigger.networks(torch.device("cpu"))
    with torch.no_grad():
        foreign, _ = write(pattern, mask, rows.x, rows.x.roll(1, 0))
    own = victim.trigger(rows.x, RowRng(0, torch.arange(len(rows))))
    hits = [float((victim.model.logits(x).argmax(1) == 0).float().mean()) for x in (own, foreign)]
    assert hits[1] < hits[0] - 0.2


def test_the_trigger_survives_saving(planted: Planted, digits: Task, tmp_path: Path) -> None:
    save(planted.victim, tmp_path / "victim")
    back = load(tmp_path / "victim")
    x, rng = digits.load("test")[:20].x, RowRng(0, torch.arange(20))
    assert torch.equal(back.trigger(x, rng), planted.victim.trigger(x, rng))


def test_applying_it_draws_nothing_and_does_not_depend_on_the_batch(planted: Planted, digits: Task) -> None:
    x = digits.load("test")[:20].x
    before = torch.get_rng_state()
    whole = planted.victim.trigger(x, RowRng(0, torch.arange(20)))
    assert torch.equal(torch.get_rng_state(), before)
    alone = planted.victim.trigger(x[[7]], RowRng(0, torch.tensor([7])))
    torch.testing.assert_close(alone, whole[[7]], atol=1e-4, rtol=1e-4)


def test_diversity_is_the_ratio_of_distances() -> None:
    a, b = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    assert float(diversity(a, b, a, 0.5 * b)) == pytest.approx(2.0, rel=1e-3)
    assert float(diversity(a[:0], b[:0], a[:0], b[:0])) == 0.0


def test_no_weights_and_too_many_rows_are_refused() -> None:
    with pytest.raises(InputError, match="weights"):
        Generated()(torch.zeros(1, 1, 8, 8), RowRng(0, torch.arange(1)))
    with pytest.raises(InputError, match="rate"):
        InputAware(rate=0.6, cross=0.6)


def test_a_batch_without_triggered_rows_leaves_the_generator_alone(digits: Task) -> None:
    (hook,) = InputAware(mask_steps=0).hooks(digits, 0)
    assert isinstance(hook, JointTraining)
    model, rows = digits.fresh(0), digits.load("train")[:40]
    hook.begin(model, rows, 0)
    loss = hook.loss(model, rows.x, rows.y, lambda x: x)
    assert loss is not None
    loss.backward()
    hook.after_step(model)
    moved = {k: v.clone() for k, v in hook.pattern.named_parameters()}
    assert hook.loss(model, rows.x[:3], rows.y[:3], lambda x: x) is None
    hook.after_step(model)
    assert all(torch.equal(v, moved[k]) for k, v in hook.pattern.named_parameters())
