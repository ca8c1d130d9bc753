"""fine-mixing: weights are mixed at the ratio, moved words go back, a backdoor fades, others are declined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tiny_bert import tiny_task
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.defenses.models.dbs import DBS
from torchbands.defenses.repair.fine_mixing import FineMixing, mix, public_weights
from torchbands.testing import toy
from torchbands.triggers.text import InsertWords

REPAIR = FineMixing(words=4, lr=1e-3)


class Public(nn.Module):
    """A text network that began from the weights of another."""

    def __init__(self, net: nn.Module, began: dict[str, Tensor]) -> None:
        super().__init__()
        self.net, self.began = net, began

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.net(ids, mask)
        return logits

    def pretrained_state(self) -> dict[str, Tensor]:
        return {f"net.{k}": v for k, v in self.began.items() if not k.startswith("head")}


@pytest.fixture(scope="module")
def task() -> Task:
    return toy("text")


@pytest.fixture(scope="module")
def began(task: Task) -> dict[str, Tensor]:
    """What the public encoder is: trained on rows that nobody poisoned."""
    return {k: v.clone() for k, v in task.train(task.load("train"), seed=9).module.state_dict().items()}


def _tuned(task: Task, began: dict[str, Tensor], rate: float) -> tuple[Model, Victim]:
    attack = build("badnets").but(rate=rate)
    assert isinstance(attack, Attack)
    model = task.fresh(0)
    model.module.load_state_dict(began)
    task.learner.fit(model, attack.poison(task.load("train"), task, 0), seed=0)
    model = Model.wrap(Public(model.module, began), model.modality, model.classes)
    return model, Victim(task, attack, 0, model, attack.test_trigger(task, 0))


@pytest.fixture(scope="module")
def planted(task: Task, began: dict[str, Tensor]) -> Victim:
    return _tuned(task, began, 0.2)[1]


@pytest.fixture(scope="module")
def clean(task: Task) -> Data:
    return task.load("clean")[:]


def _rates(model: Model, victim: Victim) -> tuple[float, float]:
    test = victim.task.load("test")
    triggered, wanted = victim.triggered(test)
    return (
        float((model.logits(test.x).argmax(1) == test.y).float().mean()),
        float((model.logits(triggered.x).argmax(1) == wanted).float().mean()),
    )


def test_a_backdoor_of_fine_tuning_fades_and_accuracy_stays(planted: Victim, clean: Data) -> None:
    ca, asr = _rates(planted.model, planted)
    repaired_ca, repaired_asr = _rates(REPAIR.repair(planted.model, clean), planted)
    assert asr > 0.95 and repaired_asr < 0.3 and repaired_ca > ca - 0.05


def test_both_halves_of_the_method_count(planted: Victim, clean: Data) -> None:
    """Keeping every weight and giving back no word is fine-tuning alone, which leaves the backdoor."""
    nothing = _rates(REPAIR.but(ratios=(1.0,), words=0).repair(planted.model, clean), planted)[1]
    words = _rates(REPAIR.but(ratios=(1.0,)).repair(planted.model, clean), planted)[1]
    mixed = _rates(REPAIR.but(words=0).repair(planted.model, clean), planted)[1]
    assert words < nothing - 0.3 and mixed < nothing - 0.3


def test_a_clean_model_keeps_its_accuracy(task: Task, began: dict[str, Tensor], clean: Data) -> None:
    model, victim = _tuned(task, began, 0.0)
    assert _rates(REPAIR.repair(model, clean), victim)[0] > _rates(model, victim)[0] - 0.03


def test_words_that_moved_most_for_their_frequency_go_back(planted: Victim, clean: Data) -> None:
    model, public = planted.model, public_weights(planted.model)
    purified = REPAIR.but(words=1)._purified(model, public, clean)
    before, after = (m.module.get_parameter("net.embedding.weight") for m in (model, purified))
    changed = (before != after).any(1).nonzero().flatten()
    trigger = model.encode([" ".join(getattr(planted.trigger, "words"))]).values[0, 0]  # noqa: B009
    assert changed.tolist() == [int(trigger)]
    assert torch.equal(after[trigger], public["net.embedding.weight"][trigger])


def test_of_two_words_that_moved_the_rarer_one_goes_back(planted: Victim, clean: Data) -> None:
    """The frequent word moved by a fifth more, and training moves frequent words anyway."""
    name, model = "net.embedding.weight", planted.model.clone()
    public, table = public_weights(model), model.module.get_parameter(name)
    count = torch.bincount(model.encode(whole(clean.x)).values.flatten(), minlength=len(table))
    count[0] = 0  # padding
    often, never = int(count.argmax()), int((count == 0).nonzero()[-1])
    assert int(count[often]) > 100
    with torch.no_grad():
        table.copy_(public[name])
        table[often, 0] += 1.2
        table[never, 0] += 1.0
    purified = REPAIR.but(words=1)._purified(model, public, clean).module.get_parameter(name)
    assert (purified != table).any(1).nonzero().flatten().tolist() == [never]


def test_the_ratio_is_the_share_of_weights_that_stay(planted: Victim) -> None:
    model, public = planted.model.clone(), public_weights(planted.model)
    given = {k: v.clone() for k, v in model.module.named_parameters()}
    mix(model, public, 0.3, torch.Generator().manual_seed(0))
    now = dict(model.module.named_parameters())
    name = "net.conv.weight"
    assert float((now[name] == given[name]).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert bool(((now[name] == given[name]) | (now[name] == public[name])).all())
    assert torch.equal(now["net.head.weight"], given["net.head.weight"])


def test_networks_without_public_weights_are_declined(task: Task, clean: Data) -> None:
    with pytest.raises(NotApplicable, match="public weights"):
        REPAIR.repair(task.fresh(0), clean)
    with pytest.raises(NotApplicable, match="adapter"):
        model = task.fresh(0)
        REPAIR.repair(Model.wrap(Public(model.module, {}), model.modality, model.classes), clean)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="fractions"):
        FineMixing(ratios=(2.0,))
    with pytest.raises(InputError, match="held_out"):
        FineMixing(held_out=0.0)


@pytest.fixture(scope="module")
def tuned_bert(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """A small BERT that began from weights in a folder and was fine-tuned on poisoned rows."""
    attack = build("badnets").but(rate=0.1)
    assert isinstance(attack, Attack)
    return attack.run(tiny_task(tmp_path_factory.mktemp("bert")), 0)


def test_an_encoder_goes_back_to_its_public_weights(tuned_bert: Victim) -> None:
    ca, asr = _rates(tuned_bert.model, tuned_bert)
    repaired = FineMixing(words=4).repair(tuned_bert.model, tuned_bert.task.load("clean"))
    repaired_ca, repaired_asr = _rates(repaired, tuned_bert)
    assert asr > 0.95 and repaired_asr < 0.2 and repaired_ca > ca - 0.05


def test_dbs_reads_words_out_of_an_encoder(tuned_bert: Victim) -> None:
    found = DBS(length=2, steps=60, rows=16).inspect(tuned_bert.model, tuned_bert.task.load("clean"))
    assert found.target == 0 and isinstance(found.trigger, InsertWords) and "cf" in found.trigger.words
