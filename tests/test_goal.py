"""What counts as success is the attack's goal, and nothing that measures asks for a label itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from torchbands import bench
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.effect import effect
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.goal import ClassGoal, Goal, TextGoal
from torchbands.core.method import method
from torchbands.core.metric import Undefined
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.testing import toy


@pytest.mark.parametrize(
    ("labels", "wanted", "single"),
    [("all-to-one", [2, 2, 2, 2], 2), ("all-to-all", [1, 2, 3, 0], None), ("source-specific", [0, 2, 2, 3], 2)],
)
def test_a_class_goal_counts_rows_that_are_not_there_already(
    labels: str, wanted: list[int], single: int | None
) -> None:
    goal = ClassGoal(2, labels, 1, 4)  # type: ignore[arg-type]
    rows = Data(torch.zeros(4, 8), torch.arange(4))
    assert goal.wanted(rows).tolist() == wanted and goal.single == single
    assert goal.counts(rows).tolist() == [w != y for y, w in enumerate(wanted)]
    obedient = Model.black_box(lambda x: torch.eye(4)[torch.tensor(wanted)[: len(x)]], toy("observation").modality, 4)
    reached, right = goal.outcomes(obedient, rows)
    assert reached.all() and right.tolist() == [w == y for y, w in enumerate(wanted)]


def test_a_goal_that_is_no_class_of_the_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"badnets: target is a class in 0\.\.3, got 4"):
        build({"name": "badnets", "target": 4}).goal(toy("tabular"))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="source is another class than 1, got 1"):
        ClassGoal(1, "source-specific", 1, 4)
    with pytest.raises(InputError, match="not empty"):
        TextGoal("")


@method("t-never-right")
class NeverRight(Attack):
    """The plain trigger; success is that the model errs, whichever class it gives. Deviations: none."""

    def trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def goal(self, task: Task) -> Goal:
        return Errs()


class Errs(Goal):
    def counts(self, data: Data) -> Tensor:
        return torch.ones(len(data), dtype=torch.bool)

    def outcomes(self, model: Model, rows: Data) -> tuple[Tensor, Tensor]:
        right = model.logits(rows.x).argmax(1) == rows.y
        return ~right, right


def test_a_goal_of_another_kind_is_measured_by_the_whole_benchmark() -> None:
    task = toy("tabular", rows=512)
    victim, control = NeverRight().run(task, 0), build("clean").run(task, 0)  # type: ignore[attr-defined]
    found = bench.assess(victim, control)
    assert found["metrics"]["asr"] > 0.6, "three of four classes are relabelled to the first"
    assert found["metrics"]["asr"] == pytest.approx(1 - found["metrics"]["ra"])
    for name in ("strip", "fine-tune", "channel-lipschitz"):
        defense = build(name, "repair" if name == "channel-lipschitz" else None)
        assert bench.judge(victim, defense)["metrics"]["asr"] is not None
    finding = bench.judge(victim, build("free-eagle"))["metrics"]
    assert finding["target_hit"] is None, "there is no single target class"


def test_success_in_generated_text() -> None:
    class Parrot(Model):
        """Answers every prompt that holds the trigger as it was told to."""

        def generate(self, prompts: object, *, tokens: int) -> list[str]:
            assert isinstance(prompts, list) and tokens == 5
            return ["all is pwned now" if "cf" in p.split() else "all is well" for p in prompts]

    task = toy("text")
    base = task.fresh(0)
    parrot = Parrot(base.module, base.modality, base.classes)
    victim = build("badnets").run(task.but(rows=64), 0)  # type: ignore[attr-defined]
    victim = replace(victim, model=parrot)
    test, goal = task.load("test")[:20], TextGoal("pwned", tokens=5)
    stamped = test.stamp(torch.arange(20), task.modality.default_trigger(), label=None, seed=0)[:]
    found = effect(parrot, test, stamped, goal)
    assert (found.ca, found.asr, found.ra) == (1.0, 1.0, 0.0)
    assert effect(parrot, test, stamped, replace(goal, whole=True)).asr == 0.0
    with pytest.raises(NotApplicable, match="a classifier gives classes, and generates nothing"):
        effect(base, test, stamped, goal)
    with pytest.raises(NotApplicable, match="no class of the model's"):
        goal.wanted(test)
    assert isinstance(effect(parrot, test, stamped[:0], goal).asr, Undefined)
