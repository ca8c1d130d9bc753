"""reinforce: it learns what pays, and its entropy bonus keeps it undecided."""

from __future__ import annotations

import pytest
import torch

from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.core.source import Environments
from torchbands.learners.bandit import Reinforce
from torchbands.testing import toy

pytest.importorskip("gymnasium")


def entropy(model: Model, rows: Data) -> float:
    logs = model.logits(rows.x).log_softmax(1)
    return float(-(logs.exp() * logs).sum(1).mean())


def learned(**settings: float) -> tuple[Model, Data]:
    task = toy("control")
    model, source = task.fresh(0), task.training_source(0)
    assert isinstance(source, Environments)
    Reinforce(envs=32, **settings).fit(model, source, seed=0)  # type: ignore[arg-type]
    return model, task.load("test")


def test_a_policy_learns_what_pays() -> None:
    model, rows = learned(updates=60)
    assert float((model.logits(rows.x).argmax(1) == rows.y).float().mean()) > 0.7


def test_the_entropy_bonus_keeps_a_policy_undecided() -> None:
    """Four actions have an entropy of log 4 = 1.386 nats at most."""
    kept, free = (entropy(*learned(updates=60, entropy=weight)) for weight in (2.0, 0.0))
    assert kept == pytest.approx(float(torch.tensor(4.0).log()), abs=0.05) and kept > free + 0.2
