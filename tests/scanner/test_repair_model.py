"""mend: what is refused and why, what is accepted, the rows it uses, and the re-activation test with its controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data
from torchbands.core.defense import Repair
from torchbands.core.errors import Diverged, InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.scanner.outcome import Answer, Outcome, Subject
from torchbands.scanner.reactivation import (
    CEILING,
    Aim,
    Probe,
    Reactivation,
    bound,
    limit,
    search_triggers,
    shift_trigger,
)
from torchbands.scanner.repair_model import RepairResult, repair_model, split
from torchbands.scanner.verdict import Verdict


def planted(name: str, task: Task, seed: int, **settings: Any) -> Victim:
    attack = build({"role": "attack", "name": name, **settings})
    assert isinstance(attack, Attack)
    return attack.run(task, seed)


@pytest.fixture(scope="module")
def task() -> Task:
    made = build({"role": "task", "name": "vision/digits", "held_out": 0.3})
    assert isinstance(made, Task)
    return made


@pytest.fixture(scope="module")
def victim(task: Task) -> Victim:
    return planted("badnets", task, 0, rate=0.05)


@pytest.fixture(scope="module")
def others(task: Task) -> list[Model]:
    """Never poisoned: what a perfect repair would give, and two references."""
    return [planted("clean", task, seed).model for seed in (5, 1, 2)]


@pytest.fixture(scope="module")
def clean(task: Task) -> Data:
    return task.load("clean")[:]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the recovered trigger is a probe."""
    monkeypatch.setattr("torchbands.scanner.repair_model._apart", lambda *a, **k: [])


def judge_of(p: float | None, verdict: Verdict = "none") -> Any:
    def judge(model: Model) -> Outcome:
        judge.seen.append(model)  # type: ignore[attr-defined]
        reasons = () if p is not None and verdict != "inconclusive" else ("nothing to compare with",)
        return Outcome(Subject("model", "m"), trigger=Answer(p, references=40), reasons=reasons, methods=("one",))

    judge.seen = []  # type: ignore[attr-defined]
    return judge


@dataclass(frozen=True, kw_only=True)
class Stub(Repair):
    """Gives back what it is told to."""

    name: ClassVar[str] = "stub"
    gives: ClassVar[dict[str, Model | Exception]] = {}
    rows: ClassVar[list[Data]] = []
    which: str = ""

    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        self.rows.append(clean)
        found = self.gives.get(self.which, model)
        if isinstance(found, Exception):
            raise found
        return found.clone()


def wreck(model: Model) -> Model:
    broken = model.clone()
    with torch.no_grad():
        for parameter in broken.module.parameters():
            parameter.zero_()
    return broken


def run(victim: Victim, clean: Data, judge: Any, *which: str, **more: Any) -> RepairResult:
    ladder = [Stub(which=w) for w in which]
    return repair_model(victim.model, clean, judge, trigger=victim.trigger, target=0, ladder=ladder, **more)


def test_rows_for_repairing_and_for_judging_never_meet(clean: Data) -> None:
    numbered = Data(clean.x, clean.y, None, {"row": torch.arange(len(clean))})
    repairing, judging = split(numbered, 0)
    one, two = set(repairing.meta["row"].tolist()), set(judging.meta["row"].tolist())
    assert not one & two and len(one | two) == len(clean)
    per_class = torch.bincount(judging.y, minlength=10) / torch.bincount(clean.y, minlength=10)
    assert (per_class - 0.3).abs().max() < 0.02
    assert set(split(numbered, 1)[1].meta["row"].tolist()) != two
    with pytest.raises(InputError, match="clean rows"):
        split(clean[:1])


@pytest.mark.usefixtures("alone")
def test_each_failing_is_refused_for_its_own_reason_and_the_first_that_holds_is_kept(
    victim: Victim, clean: Data, others: list[Model]
) -> None:
    Stub.gives = {
        "wreck": wreck(victim.model),
        "decline": NotApplicable("no such layer"),
        "diverge": Diverged("the loss became nan"),
        "good": others[0],
    }
    Stub.rows.clear()
    judge = judge_of(0.6)
    out = run(victim, clean, judge, "wreck", "decline", "diverge", "same", "good", "good", references=others[1:])
    said = [(s.verdict, s.reason) for s in out.steps]
    assert [v for v, _ in said] == ["refused", "declined", "failed", "refused", "accepted"], said
    for (_, reason), part in zip(said, ("clean accuracy", "no such layer", "nan", "still moves", "finds none")):
        assert part in reason
    assert len(judge.seen) == 1, "the scan is the dearest check and comes last"
    last = out.steps[-1]
    assert last.calibrated and last.p_trigger == 0.6 and out.accepted == last.spec
    first = last.trials[0]
    assert first.suspect > 0.9 > 0.1 > first.repaired and first.survived and first.kind == "references"
    assert out.model is not None and torch.equal(out.model.logits(clean.x), others[0].logits(clean.x))
    given = {row.numpy().tobytes() for row in Stub.rows[0].x}
    assert not given & {row.numpy().tobytes() for row in split(clean, 0)[1].x}
    assert len(given) == out.rows["repairing"]


@pytest.mark.usefixtures("alone")
def test_a_scan_that_still_finds_a_trigger_refuses(victim: Victim, clean: Data, others: list[Model]) -> None:
    Stub.gives = {"good": others[0]}
    out = run(victim, clean, judge_of(0.02, "indicated"), "good")
    assert out.model is None and out.accepted is None and "none of 1 repairs held" in out.reason
    assert "still finds a trigger" in out.steps[0].reason and out.steps[0].p_trigger == 0.02


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("p", "verdict"), [(None, "inconclusive"), (0.5, "inconclusive")])
def test_without_a_usable_p_value_it_says_that_it_was_not_calibrated(
    victim: Victim, clean: Data, others: list[Model], p: float | None, verdict: Verdict
) -> None:
    Stub.gives = {"good": others[0]}
    out = run(victim, clean, judge_of(p, verdict), "good")
    assert out.model is not None and not out.steps[0].calibrated
    assert "not calibrated: nothing to compare with" in out.reason
    assert out.steps[0].trials[0].kind == "none"


@pytest.mark.usefixtures("alone")
def test_the_report_is_plain_json(victim: Victim, clean: Data, others: list[Model]) -> None:
    import json

    Stub.gives = {"good": others[0]}
    out = run(victim, clean, judge_of(0.5), "same", "good")
    told = json.loads(json.dumps(out.to_json(), allow_nan=False))
    assert "model" not in told and [s["verdict"] for s in told["steps"]] == ["refused", "accepted"]


def test_what_comes_back_is_refused_beside_a_control(victim: Victim, clean: Data, others: list[Model]) -> None:
    """Retuning wakes the backdoor of the victim itself, and not one of a model that never had it."""
    repairing, judging = split(clean, 0)
    aim = Aim(0)
    probe = Probe.on("true", victim.trigger, judging, aim)
    for references in (others[1:], []):
        test = Reactivation(victim.model, [probe], aim, repairing, judging, references, seed=0)
        (asleep,) = test.retune(victim.model, test.trials(victim.model))
        (never,) = test.retune(others[0], test.trials(others[0]))
        assert asleep.tested and asleep.learned is not None and asleep.learned > 0.5
        assert asleep.survived is False and asleep.retuned is not None and asleep.retuned > 0.8
        assert never.survived is True
        assert asleep.retuned_control is not None and asleep.retuned_control < 0.7


def test_a_perfect_repair_may_lie_a_little_above_the_largest_control() -> None:
    """One more draw of eight controls is above the largest of them once in nine times: that is no backdoor."""
    shares = [0.12, 0.2, 0.26, 0.17, 0.22, 0.15, 0.24, 0.19]
    spread = torch.tensor(shares, dtype=torch.float64)
    expected = float(spread.mean()) + 1.8946 * float(spread.std()) * (9 / 8) ** 0.5
    assert bound(shares) == pytest.approx(expected, abs=1e-4) and bound(shares) > 0.26
    rng = torch.Generator().manual_seed(0)
    draws = (0.2 + 0.05 * torch.randn(400, 9, generator=rng)).clamp(0, 1).tolist()
    refused = sum(last > bound(controls) for *controls, last in draws) / 400
    assert refused < 0.08 < sum(last > max(controls[:3]) for *controls, last in draws) / 400
    assert bound([0.0, 0.9, 0.1, 0.0]) == 0.9, "a wild spread allows no more than its largest, or half of the rows"
    assert bound([0.0, 0.4, 0.0, 0.4]) == CEILING and bound([0.3, 0.1]) == 0.3


def test_limits_lie_above_the_control() -> None:
    assert limit(0.0) == 0.1 and limit(0.3) == pytest.approx(0.35)


def test_searched_triggers_lead_to_the_target_on_rows_not_searched_with(victim: Victim, clean: Data) -> None:
    repairing, judging = split(clean, 0)
    aim = Aim(0)
    found = search_triggers(victim.model, repairing, aim, count=2, seed=0)
    assert found and search_triggers(victim.model, repairing, aim, count=2, seed=0)[0].spec() == found[0].spec()
    for trigger in found:
        assert Probe.on("p", trigger, judging, aim).success(victim.model, 0) > 0.6
    assert all(p.requires_grad for p in victim.model.module.parameters())


def test_a_shift_is_found_where_there_is_one_and_declined_where_there_is_none(victim: Victim, clean: Data) -> None:
    linear = torch.nn.Linear(64, 10)
    module = torch.nn.Sequential(torch.nn.Flatten(), linear)
    with torch.no_grad():
        linear.weight.copy_(0.1 * torch.randn(10, 64, generator=torch.Generator().manual_seed(0)))
        linear.weight[4, 8:12] += 5.0
        linear.bias[4] = -8.0
    weak = Model(module, victim.model.modality, 10)
    trigger = shift_trigger(weak, clean, Aim(4))
    assert Probe.on("shift", trigger, clean, Aim(4)).success(weak, 4) > 0.8
    changed = trigger(torch.full((1, 1, 8, 8), 0.5), RowRng(0, torch.zeros(1))) - 0.5
    assert changed[0, 0, 1, :4].mean() > 0.1 > changed[0, 0, 4:].mean()
    with pytest.raises(NotApplicable, match="shift"):
        shift_trigger(wreck(weak), clean, Aim(4))


def test_nothing_to_repair_against_is_declined(victim: Victim, clean: Data, others: list[Model]) -> None:
    with pytest.raises(NotApplicable, match="nothing to repair"):
        repair_model(others[0], clean, judge_of(0.5), trigger=victim.trigger, target=0, ladder=[])
    box = Model.black_box(victim.model.probabilities, victim.model.modality, 10)
    with pytest.raises(NotApplicable, match="black box"):
        repair_model(box, clean, judge_of(0.5), trigger=victim.trigger, target=0)


def test_the_model_given_is_left_as_it_was(victim: Victim, clean: Data) -> None:
    before = victim.model.logits(clean.x)
    repair_model(victim.model, clean, judge_of(0.5), trigger=None, target=0, ladder=["channel-lipschitz", "unlearn"])
    assert torch.equal(before, victim.model.logits(clean.x))
