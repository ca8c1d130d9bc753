"""The simulator of federated training: who takes part, when they attack, what the server does, what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import BatchHook, ClientHook, LocalTraining, Round
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.core.rounds import Rounds
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.mean import Mean
from torchbands.learners.round_log import cosine_to_others
from torchbands.learners.server_step import ServerStep
from torchbands.learners.sgd import SGD
from torchbands.learners.vectors import weights_of
from torchbands.testing import toy

LOCAL = SGD(epochs=1, batch=32, lr=0.1, schedule="constant", precision="float32")


def fit(
    learner: FedAvg, *hooks: ClientHook | BatchHook, data: Data | None = None, rounds: Rounds | None = None
) -> tuple[Model, dict[str, Any]]:
    task = toy("federated", rows=512)
    model, rows = task.fresh(0), task.load("train") if data is None else data
    given = {} if rounds is None else {"rounds": rounds}
    return model, dict(learner.fit(model, rows, hooks=hooks, seed=3, **given))  # type: ignore[arg-type]


def test_at_random_malicious_clients_are_drawn_like_the_others() -> None:
    _, facts = fit(FedAvg(rounds=6, fraction=0.5, malicious=(0, 1), local=LOCAL))
    drawn = facts["rounds"]["clients"]
    assert all(len(set(r)) == 4 and r == sorted(r) for r in drawn) and len({tuple(r) for r in drawn}) > 2


def test_on_a_fixed_schedule_all_malicious_clients_attack_together_and_only_then() -> None:
    learner = FedAvg(rounds=7, fraction=0.5, malicious=(0, 1), participation="fixed", every=2, local=LOCAL)
    _, facts = fit(learner.but(attack_start=1, attack_stop=5))
    present = [sorted({0, 1} & set(r)) for r in facts["rounds"]["clients"]]
    assert present == [[], [0, 1], [], [0, 1], [], [], []] and all(len(r) == 4 for r in facts["rounds"]["clients"])
    with pytest.raises(InputError, match="2 clients take part in a round, fewer than the 3 malicious"):
        fit(learner.but(malicious=(0, 1, 2), fraction=0.25))


class Watching(ClientHook):
    """Notes in which rounds it acts and on how many rows."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def train(self, local: LocalTraining) -> None:
        self.seen.append((local.round.number, len(local.data)))
        local.run()


def test_outside_the_window_malicious_clients_train_as_others_and_withhold_their_poison() -> None:
    task = toy("federated", rows=512)
    clean = task.load("train")
    poisoned = build({"name": "badnets", "rate": 0.5}).poison(clean, task, 0)  # type: ignore[attr-defined]
    hook = Watching()
    learner = FedAvg(rounds=4, malicious=(0,), attack_start=2, local=LOCAL)
    fit(learner, hook, data=poisoned)
    assert hook.seen == [(2, 64), (3, 64)]
    honest = poisoned[~poisoned.poisoned]
    before, _ = fit(learner.but(rounds=2, attack_start=0, malicious=()), data=honest)
    late, _ = fit(learner.but(rounds=2, attack_start=2, malicious=(0, 1, 2)), data=poisoned)
    assert torch.equal(weights_of(before), weights_of(late)), "no poison was trained on before the attack"
    alone = replace(clean, poisoned=torch.ones(len(clean), dtype=torch.bool))
    with pytest.raises(InputError, match="every row of client 0 is poisoned, and in round 0 it does not attack"):
        fit(learner, data=alone)


def test_an_attacker_may_train_longer_than_honest_clients() -> None:
    class Steps(BatchHook):
        count = 0

        def after_step(self, model: Model) -> None:
            Steps.count += 1

    fit(FedAvg(rounds=1, malicious=(0,), local=LOCAL, attacker=LOCAL.but(epochs=5)), Steps())
    assert Steps.count == 5 * 2


def test_the_servers_optimisers_take_the_update_for_a_gradient() -> None:
    ones = torch.ones(2)
    plain = ServerStep("sgd", 0.5, (0.9, 0.99), 1e-3)
    assert plain(ones).tolist() == plain(ones).tolist() == [0.5, 0.5]
    momentum = ServerStep("momentum", 1.0, (0.5, 0.99), 1e-3)
    assert [float(momentum(ones)[0]) for _ in range(3)] == [1.0, 1.5, 1.75]
    adam = ServerStep("adam", 1.0, (0.0, 0.0), 1e-3)
    torch.testing.assert_close(adam(torch.tensor([2.0, -0.5])), torch.tensor([2 / 2.001, -0.5 / 0.501]))
    slow, _ = fit(FedAvg(rounds=1, local=LOCAL, server_lr=0.5))
    full, _ = fit(FedAvg(rounds=1, local=LOCAL))
    start = weights_of(toy("federated", rows=512).fresh(0))
    torch.testing.assert_close(weights_of(slow) - start, 0.5 * (weights_of(full) - start))


def test_the_mean_may_count_clients_by_their_rows() -> None:
    weights = torch.tensor([[1.0], [5.0]])
    sent = Updates(weights, weights.clone(), torch.arange(2), torch.tensor([30, 10]))
    model = toy("federated").fresh(0)
    assert float(Mean().start(model).step(sent, torch.zeros(1)).weights) == 3.0
    by_rows = Mean(weighting="rows").start(model).step(sent, torch.zeros(1))
    assert float(by_rows.weights) == 2.0 == float(by_rows.buffers)


def test_training_starts_from_a_checkpoint_and_says_which(tmp_path: Path) -> None:
    first, _ = fit(FedAvg(rounds=2, local=LOCAL))
    file = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in first.module.state_dict().items()}, file)
    second, facts = fit(FedAvg(rounds=1, local=LOCAL.but(lr=1e-9), checkpoint=str(file)))
    torch.testing.assert_close(weights_of(second), weights_of(first), atol=1e-5, rtol=0)
    assert len(facts["checkpoint"]) == 64
    with pytest.raises(InputError, match="there is no checkpoint"):
        fit(FedAvg(checkpoint=str(tmp_path / "none")))
    save_file({"other": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="is not a checkpoint of this network"):
        fit(FedAvg(checkpoint=str(file)))


def test_norm_and_cosine_of_every_update_are_told_and_the_learner_only_hands_on_what_a_watch_says() -> None:
    class Opposite(ClientHook):
        def updates(self, sent: Updates, round_: Round) -> Updates:
            return replace(sent, weights=-10 * sent.weights)

    said = iter(({"accuracy": 0.25, "backdoor": None}, {"accuracy": 0.5, "backdoor": 1.0}))
    models: list[Model] = []

    def watch(model: Model) -> dict[str, float | None]:
        models.append(model)
        return next(said)

    learner = FedAvg(rounds=3, malicious=(2,), local=LOCAL, watch=2)
    model, facts = fit(learner, Opposite(), rounds=Rounds(watch))
    rounds = facts["rounds"]
    assert rounds["accuracy"] == [None, 0.25, 0.5] and rounds["backdoor"] == [None, None, 1.0]
    assert models[-1] is not model and torch.equal(weights_of(models[-1]), weights_of(model))
    for norms, cosines in zip(rounds["norm"], rounds["cosine"], strict=True):
        assert norms[2] == max(norms) and cosines[2] == min(cosines) < 0
    assert all(s > 0 for r in rounds["client_seconds"] for s in r)
    torch.testing.assert_close(
        cosine_to_others(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])),
        torch.tensor([0.0, 3 / 10**0.5, 1 / 2**0.5]),
    )


def test_updates_that_are_not_finite_and_clients_that_diverge_are_left_out_and_told() -> None:
    class Broken(ClientHook):
        def updates(self, sent: Updates, round_: Round) -> Updates:
            return replace(sent, weights=sent.weights * float("nan"))

    model, facts = fit(FedAvg(rounds=2, malicious=(1,), local=LOCAL), Broken())
    assert facts["excluded"] == {n: {"1": "the update holds values that are not finite"} for n in ("0", "1")}
    assert weights_of(model).isfinite().all() and facts["rounds"]["norm"][0][1] is None
    without, _ = fit(FedAvg(rounds=2, local=LOCAL), data=_without(1))
    torch.testing.assert_close(weights_of(model), weights_of(without))
    _, facts = fit(FedAvg(rounds=1, malicious=(1,), local=LOCAL, attacker=LOCAL.but(lr=1e30)))
    assert "training loss became" in facts["excluded"]["0"]["1"] and 1 not in facts["rounds"]["clients"][0]
    everyone = FedAvg(rounds=1, malicious=tuple(range(8)), local=LOCAL, attacker=LOCAL.but(lr=1e30))
    alone, facts = fit(everyone)
    assert torch.equal(weights_of(alone), weights_of(toy("federated").fresh(0))) and len(facts["excluded"]["0"]) == 8


def _without(client: int) -> Data:
    data = toy("federated", rows=512).load("train")
    return data[data.meta["client"] != client]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 0}, "rounds and every are at least 1"),
        ({"fraction": 0.0}, r"fraction is in \(0, 1\]"),
        ({"attack_start": 5, "attack_stop": 5}, "from round 5 to before round 5: no round"),
        ({"server_lr": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FedAvg(**settings)
