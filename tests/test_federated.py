"""Federated training through the command line and the benchmark: colluders, servers with memory, trusted rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from torchbands import bench, report
from torchbands.bench.store import Store
from torchbands.cli import main
from torchbands.core.data import Data
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.federated import Aggregate, Aggregator, Server, Updates
from torchbands.core.hook import Round
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.testing import toy

FEW: dict[str, Any] = {"name": "toy/federated", "rows": 512}
GUARDED = {"role": "aggregator", "name": "centered-clipping", "radius": 0.5}


def aggregator(**settings: Any) -> Aggregator:
    made = build({"role": "aggregator", **settings})
    assert isinstance(made, Aggregator)
    return made


def sent(weights: torch.Tensor) -> Updates:
    n = len(weights)
    return Updates(weights, torch.zeros(n, 0), torch.arange(n), torch.full((n,), 10))


def test_centered_clipping_remembers_the_last_step_and_bounds_each_client() -> None:
    server = aggregator(name="centered-clipping", radius=1.0).start(toy("federated").fresh(0))
    first = server.step(sent(torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 100.0]])), torch.zeros(2))
    torch.testing.assert_close(first.weights, torch.tensor([1 / 3, 1 / 3]))
    assert first.suspicion is not None
    torch.testing.assert_close(first.suspicion, torch.tensor([0.5, 0.5, 100.0]))
    second = server.step(sent(torch.tensor([[1 / 3, 1 / 3]] * 3)), torch.zeros(2))
    torch.testing.assert_close(second.weights, torch.tensor([1 / 3, 1 / 3]))
    assert second.suspicion is not None and float(second.suspicion.max()) < 1e-6, "measured from the last step"


@pytest.mark.parametrize("settings", [{"radius": 0.0}, {"iterations": 0}])
def test_centered_clipping_refuses_what_it_cannot_mean(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="radius is above 0 and iterations at least 1"):
        aggregator(name="centered-clipping", **settings)


def test_model_replacement_shares_its_factor_and_keeps_to_its_rounds() -> None:
    task = toy("federated", rows=512)
    made = build({"name": "model-replacement", "first": 1, "shots": 1})
    (hook,) = made.hooks(task, 0)  # type: ignore[attr-defined]
    updates = sent(torch.ones(2, 3))
    sizes = []
    for number in range(3):
        now = Round(number, 3, torch.zeros(3), torch.zeros(0), 8, torch.Generator())
        sizes.append(float(hook.updates(updates, now).weights.mean()))
    assert sizes == [1.0, 4.0, 1.0], "8 clients, 2 of them malicious"


def test_a_server_is_given_the_trusted_rows_that_it_asks_for() -> None:
    given: list[int] = []

    @method("t-trusting", paper="none", needs=("clean:40",))
    class Trusting(Aggregator):
        """Notes its rows. Deviations: none."""

        def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
            given.append(0 if clean is None else len(clean))
            return build("mean").start(model)  # type: ignore[attr-defined,no-any-return]

    task = toy("federated", rows=512)
    guarded = task.but(learner=task.learner.guarded_by(Trusting()).but(rounds=1))
    guarded.train(guarded.load("train"))
    assert given == [40]
    with pytest.raises(NotApplicable, match="needs 40 trusted clean rows, and none were given"):
        guarded.recipe.train(guarded.load("train"))
    assert given == [40], "it was refused before anything was trained"


class _Keeps(Server):
    """Leaves the three lowest ids out, on the hidden knowledge of the test alone."""

    def join(self, sent: Updates, weights: torch.Tensor) -> Aggregate:
        kept = sent.clients > 2
        return Aggregate(sent.weights[kept].mean(0), sent.buffers[kept].mean(0), (~kept).float(), kept)


def test_who_was_kept_and_suspected_reaches_the_victim_and_the_record(tmp_path: Path) -> None:
    @method("t-knows-oracle", paper="none")
    class Knows(Aggregator):
        """Deviations: none."""

        def start(self, model: Model, clean: Data | None = None, *, seed: int = 0) -> Server:
            return _Keeps()

    victim = build({"name": "model-replacement", "scale": 4.0}).run(toy("federated", rows=512), 0)  # type: ignore[attr-defined]
    record = bench.judge(victim, Knows())
    values = {k: v if not isinstance(v, dict) else None for k, v in record["metrics"].items()}
    assert values["client_auroc"] == 1.0 and values["malicious_kept"] == 0.0 and values["honest_kept"] == 1.0
    assert values["asr"] < 0.1 < values["asr_before"]
    assert record["evidence"]["clients"]["0"] == {"suspicion": 1.0, "kept": 0.0}
    guarded = replace(victim, task=victim.task.but(learner=victim.task.learner.guarded_by(Knows())))
    again = guarded.attack.run(guarded.task, 0)
    assert again.info["training"]["clients"]["7"] == {"suspicion": 0.0, "kept": 1.0}


def test_colluders_against_a_server_with_memory_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "victim"
    local = {"name": "sgd", "epochs": 2, "batch": 32, "lr": 0.1, "precision": "float32"}
    learner = {"name": "fedavg", "rounds": 8, "malicious": [0], "local": local}
    task = json.dumps(FEW | {"learner": learner})
    assert main(["attack", "model-replacement", "--task", task, "-o", str(out), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["asr"] > 0.5 > metrics["control_asr"]
    assert main(["defend", "centered-clipping", str(out), "--radius", "0.5", "--json"]) == 0
    defended = json.loads(capsys.readouterr().out)
    assert defended["role"] == "aggregator" and defended["metrics"]["asr"] < metrics["asr"] - 0.3
    assert defended["metrics"]["client_auroc"] == 1.0
    assert main(["attack", "model-replacement", "--task", "toy/tabular", "-o", str(tmp_path / "other")]) == 3
    said = capsys.readouterr().err
    assert "acts on federated clients, and the learner sgd" in said and "Traceback" not in said


def test_aggregators_are_rows_of_the_benchmark(tmp_path: Path) -> None:
    grid = {
        "tasks": [FEW, {"name": "toy/tabular", "rows": 256}],
        "attacks": ["badnets"],
        "defenses": ["aggregator/median", GUARDED],
        "seeds": [0],
    }
    summary = bench.run(grid, tmp_path / "store")
    assert summary.failed == 0 and summary.declined == 4, "a model trained in one place has no clients"
    reasons = {r["reason"] for r in Store(tmp_path / "store").records("records") if r["status"] == "not-applicable"}
    assert reasons == {"sgd trains in one place: no client sends an update that could be aggregated"}
    report.write(tmp_path / "store", tmp_path / "out.md", ("md",))
    text = (tmp_path / "out.md").read_text("utf-8")
    assert "Robust aggregation" in text and "centered-clipping(radius=0.5)" in text
