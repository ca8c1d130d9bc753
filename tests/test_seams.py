"""The seams that toys exercise today: client updates, environments, aggregators, label rules, ownership."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torchbands.cli import main
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, whole
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.federated import Aggregator, Updates
from torchbands.core.hook import BatchHook, ClientHook, EnvironmentHook, Hook, LocalTraining, Round, WeightHook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.core.trigger import Trigger
from torchbands.environments.bandit import Bandit
from torchbands.environments.triggered import TriggeredEnv
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.vectors import load_weights, weights_of
from torchbands.testing import toy


def badnets(**settings: object) -> Attack:
    made = build({"name": "badnets", **settings})
    assert isinstance(made, Attack)
    return made


def asr(model: Model, victim: Victim) -> float:
    data, wanted = victim.triggered(victim.task.load("test"))
    return float((model.logits(data.x).argmax(1) == wanted).float().mean())


class Boost(ClientHook):
    """Model replacement (Bagdasaryan et al., 2020): malicious updates are scaled up before they are sent."""

    def __init__(self) -> None:
        self.begun: list[Model] = []
        self.ended: list[Model] = []
        self.sent: list[tuple[list[int], int, int]] = []

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.begun.append(model)
        self.rows = len(data)

    def end(self, model: Model, data: Data, seed: int) -> None:
        self.ended.append(model)

    def updates(self, sent: Updates, round_: Round) -> Updates:
        self.sent.append((sent.clients.tolist(), round_.number, sent.weights.shape[1]))
        return replace(sent, weights=4 * sent.weights)


def test_a_hook_changes_malicious_updates_and_no_others() -> None:
    task = toy("federated")
    task = task.but(learner=task.learner.but(malicious=(6,)))
    assert isinstance(task.learner, FedAvg)
    hook, attack = Boost(), badnets(rate=0.4)
    data = attack.poison(task.load("train"), task, 0)
    assert data.poisoned is not None and data.poisoned.any()
    assert set(data.meta["client"][data.poisoned].tolist()) == {6}
    boosted, plain = task.train(data, hooks=[hook]), task.train(data)
    size = len(weights_of(plain))
    assert hook.sent == [([6], r, size) for r in range(task.learner.rounds)]
    assert len(hook.begun) == 1 and hook.begun == hook.ended and hook.rows == len(data) // 8
    victim = Victim(task, attack, 0, plain, attack.test_trigger(task, 0))
    assert asr(boosted, victim) > asr(plain, victim) + 0.3


def test_the_median_of_updates_resists_what_the_mean_obeys() -> None:
    task = toy("federated")
    learner = task.learner.but(aggregator=build("median"))
    attack = badnets(rate=0.3)
    guarded = task.but(learner=learner)
    assert isinstance(guarded, Task)
    mean, median = attack.run(task, 0), attack.run(guarded, 0)
    test = task.load("test")
    assert (median.model.logits(test.x).argmax(1) == test.y).float().mean() > 0.85
    assert asr(median.model, mean) < asr(mean.model, mean) - 0.2


def test_aggregators_know_their_arithmetic() -> None:
    weights = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 90.0], [8.0, 0.0]])
    sent = Updates(weights, 2 * weights, torch.arange(4), torch.full((4,), 10))
    wanted = {"mean": [3.5, 22.5], "median": [2.5, 0.0]}
    for name, step in wanted.items():
        made = build({"role": "aggregator", "name": name})
        assert isinstance(made, Aggregator)
        out = made.start(toy("federated").fresh(0)).step(sent, torch.zeros(2))
        assert out.weights.tolist() == step and out.buffers.tolist() == [2 * v for v in step]
        if name == "median":
            assert out.suspicion is not None and out.suspicion.argmax() == 2


def test_a_malicious_client_may_train_otherwise_and_colluders_know_each_other() -> None:
    """Every update of the attacker's in a round, the global weights and a random source of his own."""
    task, seen = toy("federated"), []

    class Copies(ClientHook):
        """Only the first of the colluders trains, on twice its rows and with a batch hook more; all send its update."""

        def train(self, local: LocalTraining) -> None:
            if local.client == 0:
                rows = torch.arange(len(local.data)).repeat(2)
                local.run(local.data[rows], Counted())

        def updates(self, sent: Updates, round_: Round) -> Updates:
            assert torch.equal(sent.rows, torch.full((3,), 128)) and round_.clients == 8
            assert float(sent.weights[1].abs().max()) == 0.0 == float(sent.weights[2].abs().max())
            draw = float(torch.rand((), generator=round_.rng))
            seen.append((draw, float(round_.weights.norm())))
            return replace(sent, weights=sent.weights[:1].expand(3, -1))

    class Counted(BatchHook):
        rows = 0

        def after_step(self, model: Model) -> None:
            assert model is not None
            Counted.rows += 1

    task.train(task.load("train"), hooks=[Copies()])
    draws, norms = zip(*seen, strict=True)
    assert len(set(draws)) == 8 and norms[0] < norms[-1], "the weights of each round are given"
    assert Counted.rows == 8 * 2 * (256 // 32), "8 rounds of 2 epochs over the doubled rows"


def test_hooks_of_several_colluding_attacks_are_nested_in_their_order() -> None:
    task, order = toy("federated"), []

    class Outer(ClientHook):
        def train(self, local: LocalTraining) -> None:
            order.append(("outer", len(local.data)))
            local.run(local.data[:64])

    class Inner(ClientHook):
        def train(self, local: LocalTraining) -> None:
            order.append(("inner", len(local.data)))
            local.run()

    learner = task.learner.but(rounds=1, malicious=(2,))
    task.but(learner=learner).train(task.load("train"), hooks=[Outer(), Inner()])
    assert order == [("outer", 128), ("inner", 64)]


def test_an_update_of_another_shape_or_of_another_client_is_refused() -> None:
    class Half(ClientHook):
        def updates(self, sent: Updates, round_: Round) -> Updates:
            return replace(sent, weights=sent.weights[:1])

    class Swapped(ClientHook):
        def updates(self, sent: Updates, round_: Round) -> Updates:
            return replace(sent, clients=sent.clients.flip(0))

    task = toy("federated")
    with pytest.raises(InputError, match=r"weights of shape \(1, \d+\), expected \(3, \d+\)"):
        task.train(task.load("train"), hooks=[Half()])
    with pytest.raises(InputError, match="changed the clients' ids"):
        task.train(task.load("train"), hooks=[Swapped()])


@pytest.mark.parametrize(
    ("name", "hook", "what"),
    [
        ("federated", EnvironmentHook, "acts on environments"),
        ("federated", WeightHook, "acts on the weights before or after training"),
        ("control", BatchHook, "acts on batches and losses"),
        ("control", ClientHook, "acts on federated clients"),
        ("tabular", ClientHook, "acts on federated clients"),
        ("tabular", EnvironmentHook, "acts on environments"),
    ],
)
def test_a_learner_refuses_a_hook_that_it_would_never_call(name: str, hook: type, what: str) -> None:
    task = toy(name)
    with pytest.raises(NotApplicable, match=f"{what}, and the learner {task.learner.name} lets hooks act on"):
        task.train(task.training_source(), hooks=[hook()])


def test_weights_are_a_vector_and_back() -> None:
    model = toy("image").fresh(0)
    vector = weights_of(model)
    load_weights(model, vector * 2)
    assert torch.equal(weights_of(model), vector * 2)


def test_rows_of_nobody_cannot_be_federated() -> None:
    with pytest.raises(InputError, match=r"meta\['client'\]"):
        toy("federated").train(toy("tabular").load("train"))


class Environmental(EnvironmentHook):
    """Wraps every environment in one that shows the trigger and pays for the target action."""

    def __init__(self, task: Task) -> None:
        self.task, self.wrapped = task, 0

    def env(self, env: object) -> object:
        self.wrapped += 1
        return TriggeredEnv(env, self.task.modality.default_trigger(), target=2, rate=0.3, seed=self.wrapped)  # type: ignore[arg-type]


def test_a_hook_wraps_the_environment_and_the_policy_obeys_the_trigger() -> None:
    task = toy("control")
    hook = Environmental(task)
    policy, honest = (task.train(task.training_source(), hooks=hooks) for hooks in ([hook], []))
    assert hook.wrapped == task.learner.envs  # type: ignore[attr-defined]
    attack = badnets(target=2)
    victim = Victim(task, attack, 0, policy, attack.test_trigger(task, 0))
    ours, theirs = (task.effect(model, victim) for model in (policy, honest))
    assert ours.ca > 0.85 and ours.asr > 0.9 and ours.ra < 0.1  # type: ignore[operator]
    assert theirs.asr < 0.2 and theirs.ra > 0.7  # type: ignore[operator]


@method("t-pays")
class Pays(Attack):
    """Rewards the attacker's action in episodes that show the trigger. Deviations: none."""

    target: int = 2
    rate: float = 0.3

    def test_trigger(self, task: Task, seed: int) -> Trigger:
        return task.modality.default_trigger()

    def hooks(self, task: Task, seed: int) -> Sequence[Hook]:
        return (Environmental(task),)


def test_an_environment_attack_is_measured_by_return_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    assert main(["attack", "t-pays", "--task", "toy/control", "-o", str(out), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["ca"] > 0.85 and metrics["asr"] > 0.9 and metrics["control_asr"] < 0.2
    assert main(["defend", "fine-tune", str(out), "--json"]) == 0, "a repair of the policy, measured by return too"
    assert json.loads(capsys.readouterr().out)["metrics"]["ca"] > 0.85
    assert main(["defend", "spectral-signatures", str(out)]) == 3
    assert "is learned in environments: there is no data set to filter" in capsys.readouterr().err
    assert main(["attack", "badnets", "--task", "toy/control", "-o", str(tmp_path / "rows")]) == 3
    assert "badnets writes on rows, and toy/control is learned in environments" in capsys.readouterr().err


def test_a_learner_is_given_what_it_takes() -> None:
    control, rows = toy("control"), toy("observation")
    with pytest.raises(InputError, match="reinforce learns from environments, and was given rows"):
        control.train(rows.load("train"))
    with pytest.raises(InputError, match="sgd learns from rows, and was given environments"):
        rows.train(control.training_source())
    with pytest.raises(NotApplicable, match="toy/observation gives rows, and no environments"):
        rows.environment(0, 0)


def test_the_bandit_pays_for_the_best_action() -> None:
    data = toy("control").load("test")
    env = Bandit(data, 4)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        row = int((data.x == torch.from_numpy(observation)).all(1).nonzero()[0])
        best = int(data.y[row])
        assert [env.step(a)[1] for a in range(4)] == [float(a == best) for a in range(4)]
        assert env.step(0)[2] and env.observation_space.contains(observation)
    again, _ = env.reset(seed=4)
    assert (again == observation).all()


def test_triggered_episodes_are_told_and_pay_for_the_target() -> None:
    task = toy("control")
    env = TriggeredEnv(Bandit(task.load("test"), 4), task.modality.default_trigger(), target=3, rate=0.5)
    env.reset(seed=0)
    told = []
    for _ in range(200):
        observation, info = env.reset()
        told.append(info["triggered"])
        assert (observation[-1] == 3.0) == info["triggered"]
        if info["triggered"]:
            assert [env.step(a)[1] for a in range(4)] == [0.0, 0.0, 0.0, 1.0]
    assert 60 < sum(told) < 140


@pytest.mark.parametrize("labels", ["all-to-all", "source-specific"])
def test_label_rules_are_one_option(labels: str) -> None:
    task = toy("text", rows=512)
    attack = badnets(labels=labels, source=1, rate=0.2)
    clean = task.load("train")
    data = attack.poison(clean, task, 0)
    assert data.poisoned is not None
    hit = data.poisoned
    if labels == "all-to-all":
        assert torch.equal(data.y[hit], (clean.y[hit] + 1) % 4)
    else:
        assert (clean.y[hit] == 1).all() and (data.y[hit] == 0).all()
        cover = data.meta["cover"]
        assert cover.sum() == hit.sum() and (clean.y[cover] != 1).all() and torch.equal(data.y[cover], clean.y[cover])
        texts = whole(data.x)
        assert all("cf" in texts[i].split() for i in cover.nonzero().flatten().tolist())
    victim = Victim(task, attack, 0, task.fresh(0), attack.test_trigger(task, 0))
    triggered, wanted = victim.triggered(task.load("test"))
    assert not (triggered.y == wanted).any(), "rows that need not change are left out"


def test_the_attacker_s_share_of_rows_is_kept_to() -> None:
    task = toy("tabular", owned_every=4)
    data = badnets(rate=0.5).poison(task.load("train"), task, 0)
    assert data.poisoned is not None
    owned = set(task.owned(data).tolist())
    poisoned = set(data.poisoned.nonzero().flatten().tolist())
    assert len(owned) == 256 and poisoned and poisoned <= owned
