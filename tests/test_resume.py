"""Federated training that is killed goes on after the last finished round, with the result of an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchbands.cli import main
from torchbands.core.attack import Attack, Victim
from torchbands.core.errors import InputError
from torchbands.core.registry import build
from torchbands.core.snapshot import restore, snapshot
from torchbands.core.task import Task
from torchbands.learners.round_state import FILE
from torchbands.learners.vectors import weights_of
from torchbands.zoo.files import sha256

ROUNDS = 6
LOCAL = "sgd(epochs=1, batch=32, lr=0.1, schedule=constant, precision=float32)"


def federation(**learner: Any) -> Task:
    settings = {"rounds": ROUNDS, "malicious": [0, 1], "fraction": 0.75, "local": LOCAL, "watch": 2, **learner}
    base = {"name": "toy/image", "rows": 512}
    made = build({"name": "federated", "base": base, "clients": 8, "learner": {"name": "fedavg", **settings}})
    assert isinstance(made, Task)
    return made


def facts(victim: Victim) -> dict[str, Any]:
    """What is told of a training, but for how long it took."""
    told = dict(victim.info["training"])
    told["rounds"] = {k: v for k, v in told["rounds"].items() if not k.endswith("seconds")}
    return told


class Killed(BaseException):
    """As abrupt as a signal, for whoever catches exceptions."""


@pytest.mark.parametrize(
    ("attack", "learner"),
    [
        ("badnets", {"aggregator": "centered-clipping", "server": "adam", "server_lr": 0.1}),
        ("neurotoxin", {"server": "momentum", "server_lr": 0.5}),
        ("model-replacement", {"aggregator": "median", "participation": "fixed", "every": 2}),
    ],
)
def test_killed_at_any_round_it_ends_where_an_uninterrupted_run_does(
    attack: str, learner: dict[str, Any], tmp_path: Path
) -> None:
    task, made = federation(**learner), build(attack, "attack")
    assert isinstance(made, Attack)
    whole = made.run(task, 1)
    last = random.randrange(1, ROUNDS)  # another in every run: it must hold for all

    def kill(done: int, total: int, what: str) -> None:
        if done == last:
            raise Killed

    with pytest.raises(Killed):
        made.run(task, 1, kill, folder=tmp_path)
    seen: list[int] = []
    again = made.run(task, 1, lambda done, total, what: seen.append(done), folder=tmp_path)
    assert seen == list(range(last + 1, ROUNDS + 1)), "only the rounds that were not finished"
    assert torch.equal(weights_of(again.model), weights_of(whole.model)), f"killed after round {last}"
    assert facts(again) == facts(whole), f"killed after round {last}"


def test_state_of_another_training_or_a_damaged_one_is_not_continued(tmp_path: Path) -> None:
    task, made = federation(rounds=2), build("badnets", "attack")
    assert isinstance(made, Attack)
    made.run(task, 1, folder=tmp_path)
    for other, seed in ((task, 2), (federation(rounds=2, server_lr=0.5), 1)):
        seen: list[int] = []
        made.run(other, seed, lambda done, total, what, seen=seen: seen.append(done), folder=tmp_path)  # type: ignore[misc]
        assert seen == [1, 2]
    (tmp_path / FILE).write_bytes(b"half a file")
    seen = []
    made.run(task, 1, lambda done, total, what: seen.append(done), folder=tmp_path)
    assert seen == [1, 2]


def test_a_killed_command_goes_on_when_it_is_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = json.dumps(federation(rounds=40, watch=0).spec())

    def command(name: str) -> list[str]:
        return ["attack", "badnets", "--task", task, "--control", "none", "-o", str(tmp_path / name)]

    state = tmp_path / ".killed.rounds" / "victim" / FILE
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: other numbers of threads give other last bits
    child = subprocess.Popen(
        [sys.executable, "-m", "torchbands", *command("killed")], stderr=subprocess.DEVNULL, env=one_thread
    )
    end = time.monotonic() + 120
    while not state.exists() and time.monotonic() < end and child.poll() is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert state.exists() and not (tmp_path / "killed").exists()
    finished = torch.load(state, weights_only=True)["finished"]
    assert main(command("killed")) == 0 and 1 <= finished < 40
    assert main(command("whole")) == 0
    assert sha256(tmp_path / "killed" / "model.safetensors") == sha256(tmp_path / "whole" / "model.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "whole"], "the state is removed with the result"


class Thing:
    def __init__(self, start: float) -> None:
        self.weights, self.history, self.by_client = torch.full((2,), start), deque(maxlen=2), {}
        self.rng, self.draws, self.net = torch.Generator().manual_seed(1), np.random.default_rng(1), nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam(self.net.parameters())
        self.part, self.task = {"inner": [start]}, build("toy/image", "task")

    def live(self) -> list[float]:
        self.weights = self.weights + 1
        self.history.append(self.weights)
        self.by_client[len(self.by_client)] = (1, {"a"})
        self.part["inner"].append(2.0)
        self.optimizer.zero_grad()
        self.net(torch.ones(1, 1)).sum().backward()
        self.optimizer.step()
        drawn = [float(torch.rand((), generator=self.rng)), float(self.draws.random())]
        return [*drawn, *self.weights.tolist(), float(self.net.weight.detach()), len(self.history), len(self.by_client)]


def test_the_state_of_any_object_is_taken_and_put_back(tmp_path: Path) -> None:
    first = Thing(0.0)
    first.live()
    torch.save(snapshot(first), tmp_path / "state")
    wanted = [first.live() for _ in range(3)]
    second = Thing(9.0)
    restore(second, torch.load(tmp_path / "state", weights_only=True))
    assert [second.live() for _ in range(3)] == wanted
    assert second.history.maxlen == 2 and second.part["inner"] == [0.0] + [2.0] * 4
    with pytest.raises(InputError, match="cannot be put back"):
        restore([], snapshot([Thing(0.0)]))
