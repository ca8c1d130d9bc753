"""FLTrust: the server's own update is the measure of direction and of length."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from aggregating import kept, suspicion
from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.federated import Updates
from torchbands.core.hook import Hook
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Progress, TrainingFacts
from torchbands.defenses.aggregation.fltrust import FLTrust
from torchbands.testing import toy


@method("t-moves-by-three")
class Moves(Learner):
    """Adds 3 to the first parameter, whatever the rows."""

    def learn(
        self,
        model: Model,
        source: Data,
        *,
        hooks: Sequence[Hook],
        clean: Data | None,
        seed: int,
        progress: Progress | None,
    ) -> TrainingFacts:
        with torch.no_grad():
            next(model.module.parameters()).view(-1)[0] += 3
        return {}


def test_updates_count_by_their_cosine_and_have_the_length_of_the_servers_own() -> None:
    model, rows = toy("federated").fresh(0), toy("federated").load("clean")
    size = sum(p.numel() for p in model.module.parameters())
    weights = torch.zeros(4, size)
    weights[:, :2] = torch.tensor([[6.0, 0.0], [5.0, 5.0], [-9.0, 0.0], [0.0, 2.0]])
    buffers = torch.tensor([[1.0], [2.0], [80.0], [90.0]]).expand(4, 16)
    sent = Updates(weights, buffers.contiguous(), torch.arange(4), torch.full((4,), 10))
    server = FLTrust(local=Moves()).start(model, rows)
    made = server.step(sent, torch.ones(size))
    half = 0.5**0.5
    trusted = torch.tensor([3 + half * 3 * half, half * 3 * half]) / (1 + half)
    torch.testing.assert_close(made.weights[:2], trusted)
    assert made.weights[2:].abs().max() == 0 and kept(made) == [0, 1]
    assert suspicion(made) == pytest.approx([0.0, 1 - half, 2.0, 1.0], abs=1e-5)
    torch.testing.assert_close(made.buffers, torch.full((16,), (1 + half * 2) / (1 + half)))


def test_nobody_is_trusted() -> None:
    model, rows = toy("federated").fresh(0), toy("federated").load("clean")
    size = sum(p.numel() for p in model.module.parameters())
    weights = torch.zeros(2, size)
    weights[:, 0] = -1
    sent = Updates(weights, torch.zeros(2, 16), torch.arange(2), torch.full((2,), 10))
    made = FLTrust(local=Moves()).start(model, rows).step(sent, torch.zeros(size))
    assert made.weights.abs().max() == 0 and kept(made) == []


def test_a_server_without_rows_is_told() -> None:
    with pytest.raises(InputError, match="100 clean rows of the server's own, got none"):
        FLTrust().start(toy("federated").fresh(0))
