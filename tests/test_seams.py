"""The seams that toys exercise today: client updates, environments, aggregators, label rules, ownership."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, whole
from torchbands.core.defense import Aggregator, RoundContext
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.task import Hook, Task
from torchbands.environments.bandit import Bandit
from torchbands.environments.triggered import TriggeredEnv
from torchbands.learners.fedavg import FedAvg, load_weights, weights_of
from torchbands.testing import toy


def badnets(**settings: object) -> Attack:
    made = build({"name": "badnets", **settings})
    assert isinstance(made, Attack)
    return made


def asr(model: Model, victim: Victim) -> float:
    data, wanted = victim.triggered(victim.task.load("test"))
    return float((model.logits(data.x).argmax(1) == wanted).float().mean())


class Boost(Hook):
    """Model replacement (Bagdasaryan et al., 2020): a malicious update is scaled up before it is sent."""

    def __init__(self) -> None:
        self.begun = 0
        self.sent: list[tuple[int, int, int]] = []

    def begin(self, model: Model, data: Data, seed: int) -> None:
        self.begun += 1
        self.rows = len(data)

    def update(self, delta: Tensor, client: int, round_: int) -> Tensor:
        self.sent.append((client, round_, len(delta)))
        return 4 * delta


def test_a_hook_changes_malicious_updates_and_no_others() -> None:
    task = toy("federated")
    task = task.but(learner=task.learner.but(malicious=(6,)))
    assert isinstance(task.learner, FedAvg)
    hook, attack = Boost(), badnets(rate=0.05)
    data = attack.poison(task.load("train"), task, 0)
    assert data.poisoned is not None and data.poisoned.any()
    assert set(data.meta["client"][data.poisoned].tolist()) == {6}
    boosted, plain = task.train(data, hooks=[hook]), task.train(data)
    size = len(weights_of(plain))
    assert hook.sent == [(6, r, size) for r in range(task.learner.rounds)]
    assert hook.begun == 1 and hook.rows == len(data) // 8
    victim = Victim(task, attack, 0, plain, attack.trigger(task, 0))
    assert asr(boosted, victim) > asr(plain, victim) + 0.3


def test_the_median_of_updates_resists_what_the_mean_obeys() -> None:
    task = toy("federated")
    learner = task.learner.but(aggregator=build("median"))
    attack = badnets()
    guarded = task.but(learner=learner)
    assert isinstance(guarded, Task)
    mean, median = attack.run(task, 0), attack.run(guarded, 0)
    test = task.load("test")
    assert (median.model.logits(test.x).argmax(1) == test.y).float().mean() > 0.85
    assert asr(median.model, mean) < asr(mean.model, mean) - 0.2


def test_aggregators_know_their_arithmetic() -> None:
    updates = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 90.0], [8.0, 0.0]])
    context = RoundContext(0, torch.arange(4), torch.zeros(2))
    wanted = {"mean": [3.5, 22.5], "median": [2.5, 0.0]}
    for name, step in wanted.items():
        made = build({"role": "aggregator", "name": name})
        assert isinstance(made, Aggregator)
        assert made.aggregate(updates, context)[0].tolist() == step
    median = build("median")
    assert isinstance(median, Aggregator)
    assert median.aggregate(updates, context)[1].argmax() == 2


def test_weights_are_a_vector_and_back() -> None:
    model = toy("image").fresh(0)
    vector = weights_of(model)
    load_weights(model, vector * 2)
    assert torch.equal(weights_of(model), vector * 2)


def test_rows_of_nobody_cannot_be_federated() -> None:
    with pytest.raises(InputError, match=r"meta\['client'\]"):
        toy("federated").train(toy("tabular").load("train"))


class Environmental(Hook):
    """Wraps every environment in one that shows the trigger and pays for the target action."""

    def __init__(self, task: Task) -> None:
        self.task, self.wrapped = task, 0

    def env(self, env: object) -> object:
        self.wrapped += 1
        return TriggeredEnv(env, self.task.modality.default_trigger(), target=2, rate=0.3, seed=self.wrapped)  # type: ignore[arg-type]


def test_a_hook_wraps_the_environment_and_the_policy_obeys_the_trigger() -> None:
    task = toy("control")
    hook = Environmental(task)
    attack = badnets(target=2)
    policy, honest = task.train(task.load("train"), hooks=[hook]), task.train(task.load("train"))
    assert hook.wrapped == task.learner.envs  # type: ignore[attr-defined]
    victim = Victim(task, attack, 0, policy, attack.trigger(task, 0))
    test = task.load("test")
    assert (policy.logits(test.x).argmax(1) == test.y).float().mean() > 0.85
    assert asr(policy, victim) > 0.9 and asr(honest, victim) < 0.2


def test_a_policy_has_no_batches_to_poison() -> None:
    class Batches(Hook):
        def batch(self, x: object, y: Tensor, rng: torch.Generator) -> tuple[object, Tensor]:
            return x, y

    task = toy("control")
    with pytest.raises(NotApplicable, match="learns from an environment"):
        task.train(task.load("train"), hooks=[Batches()])


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
    victim = Victim(task, attack, 0, task.fresh(0), attack.trigger(task, 0))
    triggered, wanted = victim.triggered(task.load("test"))
    assert not (triggered.y == wanted).any(), "rows that need not change are left out"


def test_the_attacker_s_share_of_rows_is_kept_to() -> None:
    task = toy("tabular", owned_every=4)
    data = badnets(rate=0.5).poison(task.load("train"), task, 0)
    assert data.poisoned is not None
    owned = set(task.owned(data).tolist())
    poisoned = set(data.poisoned.nonzero().flatten().tolist())
    assert len(owned) == 256 and poisoned and poisoned <= owned
