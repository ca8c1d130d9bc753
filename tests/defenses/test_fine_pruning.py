"""Fine-pruning: the search keeps the last network within the limit, and pruned units stay out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from torchbands.core.attack import Victim
from torchbands.core.data import Data
from torchbands.core.model import Model
from torchbands.defenses.repair.fine_pruning import FinePruning


def test_search_prunes_in_order_of_activation_and_stops_within_the_limit() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (400,), generator=rng)
    needed = torch.nn.functional.one_hot(y, 4).float() * 3
    dormant = torch.rand(400, 16, generator=rng) * torch.linspace(0.01, 0.2, 16)
    features = torch.cat([needed, dormant], 1)
    head = nn.Linear(20, 5)  # the fifth class is said when none of the four has its unit
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(5, 4), torch.randn(5, 16, generator=rng) * 0.01], 1))
        head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]))
    method = FinePruning(tolerance=0.05, steps=20, held_out=0.5)
    order, pruned = method.search(features, y, head, 0)
    assert set(order[:16].tolist()) == set(range(4, 20))
    assert pruned == 16  # one more takes a whole class with it: not pruned, not kept, not off by one

    def accuracy(count: int) -> float:
        kept = torch.ones(20)
        kept[order[:count]] = 0
        return float(((features * kept) @ head.weight.T + head.bias).argmax(1).eq(y).float().mean())

    assert accuracy(16) == 1.0 and accuracy(17) < 0.95


def test_nothing_goes_when_every_unit_is_needed() -> None:
    y = torch.arange(4).repeat(50)
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
        head.bias.zero_()
    features = torch.nn.functional.one_hot(y, 4).float()
    assert FinePruning(tolerance=0.01, held_out=0.5).search(features, y, head, 0)[1] == 0


def test_takes_out_most_of_the_backdoor(
    backdoored: Victim, clean: Data, rates: Callable[[Model, Victim], tuple[float, float]]
) -> None:
    ca, asr = rates(backdoored.model, backdoored)
    repaired_ca, repaired_asr = rates(FinePruning().repair(backdoored.model, clean), backdoored)
    assert repaired_asr < 0.6 * asr and repaired_ca > ca - 0.05


def test_pruned_units_stay_out_after_fine_tuning_and_accuracy_was_within_the_limit(
    backdoored: Victim, clean: Data
) -> None:
    method = FinePruning(epochs=3)
    model = backdoored.model
    head = model.module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    order, pruned = method.search(model.outputs(clean.x).features, clean.y, head, 5)
    assert pruned > 0
    repaired = method.repair(model, clean, seed=5).module.get_submodule("head")
    assert isinstance(repaired, nn.Linear)
    silent = (repaired.weight == 0).all(0)
    assert torch.equal(silent.nonzero().flatten(), order[:pruned].sort().values)


def test_one_forward_pass_serves_the_whole_search(backdoored: Victim, clean: Data) -> None:
    model = backdoored.model.clone()
    before = model.passes.forward
    FinePruning(epochs=0).repair(model, clean)
    assert model.passes.forward - before <= len(clean) + 4
