"""debackdoor: finds exact and trained triggers from answers alone, within its budget; templates write what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, take
from torchbands.core.errors import NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.models._templates import templates_for
from torchbands.defenses.models.debackdoor import DeBackdoor, log_odds, margins
from torchbands.modalities.text import Text
from torchbands.testing import toy
from torchbands.testing.toys import MODALITIES
from torchbands.triggers.text import InsertWords

PATCH = DeBackdoor(passes=8000, rows=20, templates=("patch",))


class OnePixel(nn.Module):
    """A clean network in which one bright corner pixel, which no digit has, means class 3."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        bonus = torch.zeros(10)
        bonus[3] = 40.0
        logits: Tensor = self.net(x)
        return logits + x[:, 0, 0, 0][:, None] * bonus


class TwoClasses(nn.Module):
    """Class 3 against the best of the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.stack([logits[:, 3], logits[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]].amax(1)], 1)


@pytest.fixture(scope="module")
def clean_rows(digits: Task) -> Data:
    return digits.load("clean")[:]


def boxed(net: nn.Module, digits: Task, classes: int = 10) -> Model:
    inner = Model.wrap(net, digits.modality, classes)
    return Model.black_box(inner.probabilities, digits.modality, classes)


def test_finds_an_exact_backdoor_of_a_black_box(digits: Task, clean_rows: Data, clean_victim: Victim) -> None:
    quiet = PATCH.inspect(boxed(clean_victim.model.clone().module, digits), clean_rows)
    model = boxed(OnePixel(clean_victim.model.clone().module), digits)
    loud = PATCH.inspect(model, clean_rows)
    assert loud.target == 3 and loud.score > quiet.score + 2
    assert loud.source is not None and loud.source != loud.target
    assert loud.trigger is not None and loud.evidence["success"] > 0.95
    stamped = loud.trigger(clean_rows.x, RowRng(0, torch.arange(len(clean_rows))))
    assert float((model.logits(stamped).argmax(1) == 3).float().mean()) > 0.9
    assert loud.per_class is not None and int(loud.per_class.argmax()) == 3
    assert quiet.flagged is None and loud.flagged is None


def test_a_black_box_and_its_network_give_the_same(digits: Task, clean_rows: Data, clean_victim: Victim) -> None:
    short, model = PATCH.but(passes=1000), clean_victim.model.at_precision("float32")
    one, two = (short.inspect(m, clean_rows) for m in (model, boxed(model.clone().module, digits)))
    assert one.per_class is not None and two.per_class is not None
    torch.testing.assert_close(one.per_class, two.per_class, rtol=1e-2, atol=1e-2)


def test_keeps_its_budget(digits: Task, clean_rows: Data, clean_victim: Victim) -> None:
    model = boxed(clean_victim.model.clone().module, digits)
    found = DeBackdoor(passes=3000, rows=10).inspect(model, clean_rows)
    assert model.passes.forward == found.evidence["passes"] <= 3000
    assert set(found.evidence["cASR"]) == {"patch", "blend"} and found.statistics is not None
    assert found.statistics.shape == (20,)


def test_annealing_is_better_than_chance(clean_rows: Data, clean_victim: Victim) -> None:
    model = clean_victim.model
    few = PATCH.but(passes=400).inspect(model, clean_rows)
    many = PATCH.but(passes=8000).inspect(model, clean_rows)
    assert sum(many.evidence["cASR"]["patch"]) > sum(few.evidence["cASR"]["patch"])


def test_two_classes(digits: Task, clean_rows: Data, clean_victim: Victim) -> None:
    rows = Data(clean_rows.x, (clean_rows.y != 3).long())
    nets = [clean_victim.model.clone().module, OnePixel(clean_victim.model.clone().module)]
    quiet, loud = (PATCH.but(passes=16_000).inspect(boxed(TwoClasses(net), digits, 2), rows) for net in nets)
    assert loud.per_class is not None and quiet.per_class is not None
    assert float(loud.per_class[0]) > float(quiet.per_class[0]) + 2
    assert loud.target is not None and loud.source == 1 - loud.target


def test_finds_the_word_of_a_text_backdoor() -> None:
    task, attack = toy("text"), build("badnets")
    assert isinstance(attack, Attack)
    victim, control = attack.run(task, 0), build("clean").run(task, 0)  # type: ignore[attr-defined]
    loud, quiet = (DeBackdoor(passes=10_000).inspect(v.model, task.load("clean")) for v in (victim, control))
    assert loud.target == attack.target and loud.score > quiet.score + 1
    assert isinstance(loud.trigger, InsertWords) and isinstance(victim.trigger, InsertWords)
    assert set(loud.trigger.words) & set(victim.trigger.words)


@pytest.mark.parametrize("name", MODALITIES)
def test_templates_write_what_they_harden_to(name: str) -> None:
    task, rng = toy(name), torch.Generator().manual_seed(0)
    rows = take(task.load("clean").x, torch.arange(3))
    for template in templates_for(task.modality):
        state = template.draw(6, rng)
        for heat in (1.0, 0.5, 0.01):
            state = template.move(state, heat, rng)
        written = template.write(rows, state)
        task.modality.check(written)
        assert len(written) == 18
        for k in range(6):
            wanted, got = template.harden(state, k)(rows, RowRng(0, torch.arange(3))), written[3 * k : 3 * k + 3]
            assert torch.allclose(got, wanted) if isinstance(got, Tensor) else got == wanted
        if isinstance(written, Tensor):
            assert bool((written != rows.repeat(6, *[1] * (rows.ndim - 1))).flatten(1).any(1).any())
        else:
            assert all(after != before for after, before in zip(written, list(rows) * 6, strict=True))


def test_declines_where_there_is_no_template(clean_rows: Data, clean_victim: Victim) -> None:
    with pytest.raises(NotApplicable, match="template named fog"):
        DeBackdoor(templates=("fog",)).inspect(clean_victim.model, clean_rows)
    with pytest.raises(NotApplicable, match="vocabulary"):
        templates_for(Text())[0].draw(1, torch.Generator())


def test_margins() -> None:
    assert margins(torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])).tolist() == [[0.25, -0.25, -0.25], [-1, 1, -1]]
    assert log_odds(torch.tensor([0.5, 1.0])).tolist() == pytest.approx([0.0, 13.8155], abs=0.1)
