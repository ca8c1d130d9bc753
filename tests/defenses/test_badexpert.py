"""badexpert: the expert forgets the task and keeps the backdoor; agreement by hand; threshold from kept-back rows."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.inputs.badexpert import BaDExpert, FittedBaDExpert, agreement


def fit(victim: Victim) -> FittedBaDExpert:
    fitted = BaDExpert().fit(victim.model, victim.task.load("clean"))
    assert isinstance(fitted, FittedBaDExpert)
    return fitted


def share(model: Model, data: Data, wanted: torch.Tensor) -> float:
    return int((model.logits(data.x).argmax(1) == wanted).sum()) / len(data)


def auroc(victim: Victim, fitted: FittedBaDExpert) -> float:
    test = victim.task.load("test")
    triggered, _ = victim.triggered(test)
    clean, suspect = fitted.score(test.x), fitted.score(triggered.x)
    return float(roc_auc_score([0] * len(clean) + [1] * len(suspect), torch.cat([clean, suspect])))


def test_expert_forgets_the_task_and_keeps_the_backdoor(planted_victim: Victim) -> None:
    fitted = fit(planted_victim)
    test = planted_victim.task.load("test")
    triggered, wanted = planted_victim.triggered(test)
    assert share(fitted.expert, test, test.y) < 0.6
    assert share(fitted.expert, triggered, wanted) > 0.9
    assert share(fitted.shadow, test, test.y) > 0.9


def test_triggered_inputs_score_higher(planted_victim: Victim, clean_victim: Victim) -> None:
    fitted = fit(planted_victim)
    assert auroc(planted_victim, fitted) > 0.9
    triggered, _ = planted_victim.triggered(planted_victim.task.load("test"))
    assert int(fitted.flag(triggered.x).sum()) / len(triggered) > 0.9
    assert 0.3 < auroc(clean_victim, fit(clean_victim)) < 0.7


def test_agreement_by_hand() -> None:
    expert = torch.tensor([1.0, 1.0, 0.5, 0.0])
    shadow = torch.tensor([0.0, 1.0, 0.25, 0.9])
    got = agreement(expert, shadow)
    assert got[0] == 0 and got[1] == 2 and got[2] == 1  # sure against sure of it; both sure; min(1, 2)
    near = agreement(torch.tensor([0.9]), torch.tensor([0.3]))
    assert float(near) == pytest.approx(0.5)  # min(0.6 / 0.9, 0.1 / 0.2)
    assert got[3] > 1e6  # a clean input: the copy is sure, the expert is not


def test_clean_labels_are_needed_and_the_model_is_left_alone(digits: Task, planted_victim: Victim) -> None:
    model, clean = planted_victim.model, digits.load("clean")
    before = {k: t.clone() for k, t in model.module.state_dict().items()}
    one, two = (BaDExpert().fit(model, clean) for _ in range(2))
    x = digits.load("test")[:50].x
    assert torch.equal(one.score(x), two.score(x))
    assert all(torch.equal(t, before[k]) for k, t in model.module.state_dict().items())
    with pytest.raises(InputError, match="got 3"):
        BaDExpert().fit(model, clean[:3])


def test_threshold_is_from_rows_kept_back(digits: Task, planted_victim: Victim) -> None:
    clean = digits.load("clean")
    fitted = BaDExpert(fpr=0.5).fit(planted_victim.model, clean)
    assert fitted.threshold is not None
    flags = int(fitted.flag(digits.load("test").x).sum()) / len(digits.load("test"))
    assert 0.25 < flags < 0.75


def test_declines_a_black_box(digits: Task, clean_victim: Victim) -> None:
    box = Model.black_box(clean_victim.model.probabilities, digits.modality, 10)
    with pytest.raises(NotApplicable, match="gradients"):
        BaDExpert().fit(box, digits.load("clean"))
