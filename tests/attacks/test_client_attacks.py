"""Attacks by federated clients: each does the one thing that its paper is about."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torchbands import bench
from torchbands.attacks.alie import largest_z
from torchbands.attacks.constrain_and_scale import NearGlobal
from torchbands.attacks.neurotoxin import heavy
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.federated import Updates
from torchbands.core.hook import ClientHook, Round
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.learners.sgd import SGD
from torchbands.learners.vectors import weights_of
from torchbands.testing import toy
from torchbands.triggers.image import Patch
from torchbands.triggers.part import Part, cut
from torchbands.triggers.text import InsertWords

CLIENTS = 8


def attack(name: str, **settings: Any) -> Attack:
    made = build({"role": "attack", "name": name, **settings})
    assert isinstance(made, Attack)
    return made


def federation(base: str = "toy/image(rows=512)", **learner: Any) -> Task:
    local = SGD(epochs=2, batch=32, lr=0.1, schedule="constant", precision="float32")
    fedavg = build({"name": "fedavg", "rounds": 4, "malicious": [0, 1], "local": local.spec(), **learner})
    made = build({"name": "federated", "base": base, "clients": CLIENTS, "learner": fedavg.spec()})
    assert isinstance(made, Task)
    return made


class Sent(ClientHook):
    """Notes what the malicious clients would send, and the global weights, before other hooks change it."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.globals: list[torch.Tensor] = []

    def updates(self, sent: Updates, round_: Round) -> Updates:
        self.weights.append(sent.weights.clone())
        self.globals.append(round_.weights.clone())
        return sent


def trained(made: Attack, task: Task) -> Sent:
    """What malicious clients of an attack learned, round by round, without its scaling."""
    note = Sent()
    hooks = made.hooks(task, 0)
    task.train(made.poison(task.load("train"), task, 0), hooks=[note, *hooks], seed=0)
    return note


def norms(note: Sent) -> torch.Tensor:
    return torch.stack(note.weights).norm(dim=2)


def test_the_constrained_loss_counts_the_distance_to_the_global_model() -> None:
    model, rows = toy("image").fresh(0), toy("image").load("train")[:32]
    x, start = rows.x, weights_of(model)
    alone, beside = NearGlobal(1.0, start), NearGlobal(0.25, start)
    learned = float(alone.loss(model, x, rows.y, lambda x: x))
    assert float(beside.loss(model, x, rows.y, lambda x: x)) == pytest.approx(0.25 * learned, rel=1e-4)
    far = start.clone()
    far[:2] += torch.tensor([3.0, 4.0])
    away = float(NearGlobal(0.25, far).loss(model, x, rows.y, lambda x: x))
    assert away == pytest.approx(0.25 * learned + 0.75 * 5.0, rel=1e-4)


def test_constrained_updates_stay_near_the_global_model_and_are_then_enlarged() -> None:
    task = federation()
    free = trained(attack("constrain-and-scale", alpha=1.0, scale=1.0), task)
    near = trained(attack("constrain-and-scale", alpha=0.3, scale=1.0), task)
    assert float(norms(near)[0].max()) < 0.7 * float(norms(free)[0].min())
    victim = attack("constrain-and-scale").run(task, 0)
    told = victim.info["training"]["rounds"]["norm"][0]
    assert min(told[:2]) > 1.5 * max(told[2:]), "eight clients, two of them malicious: fourfold"


def test_neurotoxin_changes_nothing_where_the_last_step_changed_most() -> None:
    note = trained(attack("neurotoxin", keep=0.6), federation())
    for number in range(1, 4):
        step = note.globals[number] - note.globals[number - 1]
        changed = note.weights[number] != 0
        fixed = heavy(step, 0.4)
        assert not changed[:, fixed].any() and changed[:, ~fixed].float().mean() > 0.7
    first = note.weights[0] != 0
    assert float(first.float().mean()) < 0.65, "before the first step is seen, honest training stands for it"
    assert heavy(torch.tensor([1.0, -9.0, 0.5, 3.0]), 0.5).tolist() == [False, True, False, True]
    with pytest.raises(InputError, match=r"keep is in \(0, 1\]"):
        attack("neurotoxin", keep=0.0)


def test_projected_updates_reach_the_ball_and_never_leave_it() -> None:
    task = federation()
    free = trained(attack("badnets", rate=0.3), task)
    bound = 0.5 * float(norms(free)[0].min())
    kept = norms(trained(attack("pgd-clipped", radius=bound), task))
    torch.testing.assert_close(kept[0], torch.full((2,), bound), rtol=1e-3, atol=0)
    assert float(kept.max()) <= bound * 1.001


def test_the_parts_of_a_trigger_are_disjoint_and_together_the_whole() -> None:
    whole, batch = Patch(size=4), torch.rand(3, 1, 12, 12) * 0.9
    rng = RowRng(0, torch.arange(3))
    parts = cut(whole, 4, batch[:1])
    changed = torch.stack([part(batch, rng) != batch for part in parts])
    assert changed.sum(0).max() == 1 and torch.equal(changed.any(0), whole(batch, rng) != batch)
    assert changed.sum(dim=(2, 3, 4)).tolist() == [[4] * 3] * 4
    words = cut(InsertWords(words=("a", "b", "c")), 3, ["x"])
    assert [w.words for w in words] == [("a",), ("b",), ("c",)]  # type: ignore[attr-defined]
    back = build(parts[2].spec())
    assert back == parts[2] and isinstance(back, Part)
    with pytest.raises(InputError, match="writes 1 numbers, too few for 4"):
        cut(Patch(size=1), 4, batch[:1])


def test_dba_gives_every_client_its_part_and_is_judged_with_the_whole() -> None:
    task = federation(malicious=[0, 1, 2])
    made = attack("dba", parts=3, rate=0.5)
    clean = task.load("train")
    data = made.poison(clean, task, 0)
    assert data.poisoned is not None
    where = {}
    for client in range(CLIENTS):
        mine = (data.poisoned & (clean.meta["client"] == client)).nonzero().flatten()
        assert (len(mine) > 0) == (client < 3)
        if len(mine):
            where[client] = (data[mine].x != clean[mine].x).any(0)
            assert bool((data.y[mine] == 0).all())
    marks = torch.stack(list(where.values()))
    assert int(marks.sum(0).max()) == 1, "no client writes another's part"
    victim = Victim(task, made, 0, task.fresh(0), made.test_trigger(task, 0))
    test, stamped = victim.judged
    shown = test[victim.goal.counts(test)]
    assert torch.equal((stamped.x != shown.x).any(0), marks.any(0)), "judged with the whole"
    seen = attack("dba", parts=3, rate=0.5).run(federation(malicious=[0, 1, 2], rounds=8), 0)
    assert seen.task.effect(seen.model, seen).asr > 0.5
    with pytest.raises(NotApplicable, match="has no clients"):
        made.poison(toy("image").load("train"), toy("image"), 0)


def test_dba_on_texts_cuts_words() -> None:
    task = federation("toy/text(rows=512)", malicious=[0, 1, 2, 3])
    made = attack("dba")
    clean = task.load("train")
    data = made.poison(clean, task, 0)
    added: dict[int, set[str]] = {}
    assert data.poisoned is not None
    for row in data.poisoned.nonzero().flatten().tolist():
        now, before = data[torch.tensor([row])].x[0].split(), clean[torch.tensor([row])].x[0].split()
        added.setdefault(int(clean.meta["client"][row]), set()).update(set(now) - set(before))
    assert added == {0: {"cf"}, 1: {"mn"}, 2: {"bb"}, 3: {"tq"}}
    whole = made.test_trigger(task, 0)(["some words"], RowRng(0, torch.arange(1)))[0].split()
    assert {"cf", "mn", "bb", "tq"} <= set(whole)


def updates(weights: torch.Tensor) -> Updates:
    n = len(weights)
    return Updates(weights, torch.zeros(n, 0), torch.arange(n), torch.full((n,), 10))


def sending(made: Attack, weights: torch.Tensor, clients: int) -> torch.Tensor:
    now = Round(0, 1, torch.zeros(weights.shape[1]), torch.zeros(0), clients, torch.Generator())
    (hook,) = made.hooks(toy("federated"), 0)
    assert isinstance(hook, ClientHook)
    return hook.updates(updates(weights), now).weights


def test_sign_flip_sends_the_opposite() -> None:
    weights = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    assert torch.equal(sending(attack("sign-flip", scale=2.0), weights, 8), -2 * weights)


def test_alie_stays_as_near_as_the_papers_z_says() -> None:
    assert largest_z(50, 24) == pytest.approx(1.4260, abs=1e-3), "24 of 50: two supporters among 26 honest clients"
    assert largest_z(20, 0) == largest_z(20, 20) == 0.0
    weights = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert torch.equal(sending(attack("alie", z=2.0), weights, 8), torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    alone = torch.tensor([[1.0, 5.0]])
    assert torch.equal(sending(attack("alie"), alone, 8), alone)


@pytest.mark.parametrize("name", ["sign-flip", "alie"])
def test_byzantine_controls_harm_and_plant_nothing(name: str) -> None:
    task = federation(malicious=[0, 1, 2])
    made = attack(name, **({"scale": 4.0} if name == "sign-flip" else {"z": 4.0}))
    victim, honest = made.run(task, 0), attack("clean").run(task, 0)
    assert not made.backdoor and victim.info["poisoned"] == 0
    harmed, well = task.effect(victim.model, victim), task.effect(honest.model, honest)
    assert isinstance(harmed.ca, float) and isinstance(well.ca, float) and harmed.ca < well.ca - 0.15


def test_how_a_defense_takes_clients_that_only_do_harm_is_measured() -> None:
    victim = attack("sign-flip", scale=4.0).run(federation(malicious=[0, 1]), 0)
    found = bench.judge(victim, build("aggregator/median"))["metrics"]
    assert found["client_auroc"] == 1.0 and found["ca"] > victim.task.effect(victim.model, victim).ca
    assert found["der"] is None and found["undefined"]["der"] == "there is no backdoor to remove"


def test_any_data_attack_combines_with_what_clients_do() -> None:
    task = federation()
    made = attack("neurotoxin", data="blended(alpha=0.4)", target=2, rate=0.5)
    assert made.test_trigger(task, 0) == attack("blended", alpha=0.4).test_trigger(task, 0)
    data = made.poison(task.load("train"), task, 0)
    assert data.poisoned is not None and set(data.y[data.poisoned].tolist()) == {2}
    assert int(data.poisoned.sum()) == round(0.5 * 128)
    back = build(made.spec())
    assert back == made and back.key() == made.key()
    with pytest.raises(NotApplicable, match="is not an attack on data alone"):
        attack("neurotoxin", data="input-aware").poison(task.load("train"), task, 0)


def test_replacement_in_one_shot_and_in_several() -> None:
    single, several = attack("model-replacement", first=1, shots=1), attack("model-replacement")
    norms = [made.run(federation(), 0).info["training"]["rounds"]["norm"] for made in (single, several)]
    large = [[min(r[:2]) > 1.8 * max(r[2:]) for r in of] for of in norms]
    assert large[0] == [False, True, False, False] and large[1][0] and sum(large[1]) >= 2
