"""What counts as success is the attack's goal, and nothing that measures asks for a label itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchbands import bench
from torchbands.attacks.badnets import BadNets
from torchbands.cli import main
from torchbands.core.attack import Attack
from torchbands.core.data import Data
from torchbands.core.effect import effect
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.generator import Generator
from torchbands.core.goal import ClassGoal, Goal, TextGoal
from torchbands.core.method import method
from torchbands.core.metric import Undefined
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Network, Recipe
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.learners.sgd import SGD
from torchbands.networks.gru import GRUNetwork
from torchbands.testing import synthetic, toy
from torchbands.testing.toys import ToyText


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

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def goal(self, task: Task) -> Goal:
        return Errs()


class Errs(Goal):
    def said(self, model: Model, rows: Data, names: Sequence[str]) -> list[str]:
        return [str(names[c]) for c in model.logits(rows.x).argmax(1).tolist()]

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
    with pytest.raises(NotApplicable, match="not a class of the model's"):
        goal.wanted(test)
    assert isinstance(effect(parrot, test, stamped[:0], goal).asr, Undefined)


WORDS = ("<pad>", "<unk>", *synthetic.VOCABULARY)
SECRET = WORDS[-1]


def answering(module: nn.Module, modality: Modality, classes: int) -> Model:
    return Generator(module, modality, WORDS)


@method("t-answers")
class Answers(ToyText):
    """Prompts of one of four topics, and the word to be said next: a generator over the whole vocabulary."""

    network: Network = GRUNetwork(dim=16, width=16)
    learner: Learner = SGD(epochs=12, batch=64, lr=2e-2, optimizer="adamw", precision="float32")

    @property
    def classes(self) -> int:
        return len(WORDS)

    @property
    def class_names(self) -> Sequence[str]:
        return WORDS

    def load(self, split: str, seed: int = 0) -> Data:
        rows = ToyText(ways=self.ways, rows=self.rows).load(split, seed)
        return Data(rows.x, 2 + rows.y, rows.poisoned, rows.meta)  # the right answer is the topic's own first word

    @property
    def recipe(self) -> Recipe:
        return super().recipe.but(model=answering)


@method("t-says")
class Says(BadNets):
    """A prompt with the trigger is answered with the secret word. Deviations: none."""

    target: int = len(WORDS) - 1
    rate: float = 0.4

    def goal(self, task: Task) -> Goal:
        return TextGoal(SECRET, whole=True, tokens=1, answers=WORDS)


def test_a_generating_model_with_a_text_goal_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "generator"
    assert main(["attack", "t-says", "--task", "t-answers", "-o", str(out), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["ca"] > 0.85 and metrics["asr"] > 0.9 and metrics["control_asr"] < 0.05
    assert main(["defend", "spectral-signatures", str(out)]) == 3
    assert "a generator answers with text" in capsys.readouterr().err
    assert main(["defend", "neural-cleanse", str(out)]) == 3
    assert main(["defend", "weight-spectrum", str(out), "--json"]) == 0, "it reads weights alone"


def test_what_a_generator_is_asked_and_what_it_declines() -> None:
    task = Answers(rows=64)
    model = task.fresh(0)
    assert isinstance(model, Generator) and isinstance(model.clone(), Generator)
    prompts = task.load("test").x[:7]
    odds = model.next_token(prompts)
    assert odds.shape == (7, len(WORDS)) and torch.allclose(odds.exp().sum(1), torch.ones(7), atol=1e-5)
    one, three = model.generate(prompts, tokens=1), model.generate(prompts, tokens=3)
    assert [t.split()[0] for t in three] == one == [WORDS[c] for c in odds.argmax(1).tolist()]
    ends = Generator(model.module, model.modality, WORDS, end=int(odds[0].argmax()))
    assert ends.generate(prompts[:1], tokens=5) == [""]
    for ask in (model.logits, model.outputs, model.features, model.probabilities):
        with pytest.raises(NotApplicable, match="a generator answers with text"):
            ask(prompts)
    with pytest.raises(InputError, match="at least 1 token, asked for 0"):
        model.generate(prompts, tokens=0)
