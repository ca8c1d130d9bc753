"""Any task made federated: partitions, whose rows are whose, and a spec that nests another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from torchbands.cli import main
from torchbands.core.data import Data
from torchbands.core.errors import BandsError, InputError
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.learners.fedavg import FedAvg
from torchbands.learners.vectors import weights_of
from torchbands.tasks.federated import Federated
from torchbands.tasks.partition import by_column, dirichlet, iid
from torchbands.testing.toys import ToyImage


def federated(**settings: Any) -> Task:
    made = build({"name": "federated", "base": "toy/image", "clients": 8, **settings}, "task")
    assert isinstance(made, Task)
    return made


def test_iid_deals_every_row_evenly_and_by_seed() -> None:
    dealt = iid(1003, 10, seed=1)
    assert sorted(torch.bincount(dealt).tolist()) == [100] * 7 + [101] * 3
    assert torch.equal(dealt, iid(1003, 10, seed=1)) and not torch.equal(dealt, iid(1003, 10, seed=2))


def test_the_smaller_alpha_the_fewer_classes_a_client_has() -> None:
    y = torch.arange(5000) % 10

    def largest_class(alpha: float) -> float:
        dealt = dirichlet(y, 20, alpha, seed=0)
        assert int(torch.bincount(dealt, minlength=20).min()) >= 2
        tables = [torch.bincount(y[dealt == c], minlength=10).float() for c in range(20)]
        return float(torch.stack([t.max() / t.sum() for t in tables]).mean())

    skewed, middling, even = largest_class(0.1), largest_class(1.0), largest_class(1000.0)
    assert skewed > 0.5 > middling > even and even < 0.2


def test_a_column_deals_one_client_to_each_of_its_values() -> None:
    assert by_column(torch.tensor([70, 3, 70, 9])).tolist() == [2, 0, 2, 1]

    class WithUsers(ToyImage):
        def load(self, split: str, seed: int = 0) -> Data:
            rows = super().load(split, seed)
            return Data(rows.x, rows.y, None, {"user": torch.arange(len(rows)) % 3 * 10})

    task = Federated(base=WithUsers(), partition="column", column="user")
    assert torch.equal(task.load("train").meta["client"], torch.arange(1024) % 3)
    with pytest.raises(InputError, match="no column 'who'; they have: user"):
        task.but(column="who").load("train")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clients": 600}, "600 clients cannot share 1,024 rows"),
        ({"partition": "dirichlet", "alpha": 0.0}, "alpha is above 0"),
        ({"partition": "dirichlet", "alpha": 0.001, "clients": 64}, "left some of 64 clients fewer than 2"),
        ({"partition": "column"}, "needs the column's name"),
        ({"column": "user"}, "needs the column's name, and no other takes one"),
        ({"base": "federated"}, "is federated already"),
        ({"base": "toy/control"}, "has no rows to deal to clients"),
        ({"base": "no-such-task"}, "no-such-task"),
    ],
)
def test_what_cannot_be_dealt_is_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BandsError, match=said):
        federated(**settings).load("train")


def test_a_task_around_a_task_comes_back_from_its_spec_and_its_title() -> None:
    task = federated(base="toy/image(rows=512)", partition="dirichlet", alpha=0.3)
    for written in (json.loads(json.dumps(task.spec())), task.label()):
        back = build(written, "task")
        assert back == task and back.key() == task.key()
    assert task.key() != federated(base="toy/image(rows=500)", partition="dirichlet", alpha=0.3).key()
    wide = build("small-cnn(widths=(4, 4))", "network")
    wider = task.but(network=wide)
    assert wider.network == wide == wider.base.network and wider.key() != task.key()  # type: ignore[attr-defined]
    assert len(weights_of(wider.fresh(0))) != len(weights_of(task.fresh(0)))


def test_any_task_is_made_federated_by_its_name() -> None:
    made = build("federated/toy/image", "task")
    assert made == build("federated(base=toy/image)", "task")
    assert build("federated/toy/image(clients=5, alpha=2.0)", "task") == made.but(clients=5, alpha=2.0)
    assert type(build("federated/sst2", "task")).name == "federated/sst2", "a name of its own comes first"
    for wrong in ("federated/toy/imag", "toy/image/toy/text", "federated/federated"):
        with pytest.raises(BandsError):
            build(wrong, "task")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "sst2"])
def test_named_federations_are_the_same_class_around_another_task(name: str) -> None:
    task = build(f"federated/{name}", "task")
    assert isinstance(task, Federated) and task.base.name.endswith(f"/{name}")
    assert type(task).load is Federated.load and task.network == task.base.network
    assert task.fingerprint() == task.base.fingerprint()
    assert isinstance(task.learner, FedAvg) and task.learner.malicious == (0,) and task.learner.watch == 1


def test_the_attacker_owns_the_rows_of_its_clients_and_its_rate_is_a_share_of_them() -> None:
    task = federated()
    data = task.load("train")
    assert set(data.meta["client"][task.owned(data)].tolist()) == {0} and len(task.owned(data)) == 128
    assert len(task.owned(task.load("test"))) == 0, "test rows are nobody's"
    poisoned = build({"name": "badnets", "rate": 0.25}).poison(data, task, 0)  # type: ignore[attr-defined]
    assert int(poisoned.poisoned.sum()) == 32 and set(data.meta["client"][poisoned.poisoned].tolist()) == {0}
    with pytest.raises(BandsError, match="is trained by fedavg, got sgd"):
        task.but(learner=build("sgd")).owned(data)


def test_a_federation_is_attacked_and_judged_like_any_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner = "fedavg(rounds=4, malicious=(0, 1), local=sgd(epochs=2, batch=32, lr=0.1, schedule=constant), watch=2)"
    task = f"federated(base=toy/image, clients=4, learner={learner})"
    out = tmp_path / "victim"
    assert main(["attack", "badnets", "--rate", "0.5", "--task", task, "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["asr"] > 0.5 > told["metrics"]["control_asr"] and told["metrics"]["ca"] > 0.8
    rounds = told["info"]["training"]["rounds"]
    assert rounds["clients"] == [[0, 1, 2, 3]] * 4 and rounds["accuracy"][0] is None is rounds["backdoor"][2]
    assert rounds["backdoor"][3] > 0.5 and rounds["accuracy"][3] > 0.8
    assert main(["defend", "aggregator/median", str(out), "--json"]) == 0
