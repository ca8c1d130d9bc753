"""The rules of behaviour: each role's methods are run on a toy, watched by guards, and their results are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchbands.core.attack import Attack
from torchbands.core.defense import DataFilter, InputDetector, ModelDetector, Repair, Training
from torchbands.core.errors import NotApplicable
from torchbands.core.federated import Aggregator
from torchbands.core.method import Method
from torchbands.core.model import Model
from torchbands.core.recipe import Network
from torchbands.core.seeding import RowRng
from torchbands.testing import run_defenses as defenses
from torchbands.testing.checks import Outcome
from torchbands.testing.fixtures import demand
from torchbands.testing.run_attacks import longer, run_attack
from torchbands.testing.toys import toy


def exercise(made: Method, name: str, *, twice: bool = True) -> Outcome:
    """Run a method on a toy by the rules of its role.

    Args:
        made: the method. name: a toy's name.
        twice: run again with the same seed and demand the same result.

    Raises:
        ContractError: a rule is broken.
    """
    for kind, run in _ROLES.items():
        if isinstance(made, kind):
            try:
                return run(made, name, twice)
            except NotApplicable as declined:
                demand(bool(declined.reason.strip()), "declined without a reason")
                return Outcome(False, declined.reason)
    return Outcome(False, f"the contract runs no {made.role}")


def confirm(made: Method, name: str, seen: Outcome) -> Outcome:
    """What is asked once a method was of use on a toy: of a model detector, that it is no luck of one seed."""
    if isinstance(made, ModelDetector) and seen.ran and seen.useful:
        return defenses.rank_models(made, name)
    return seen


def run_network(made: Network, name: str, twice: bool) -> Outcome:
    modality = made.reads(toy(name).modality)
    with torch.random.fork_rng():
        model = Model(made.build(modality, 3), modality, 3)
    logits = model.logits(modality.random(2, torch.Generator().manual_seed(0)))
    demand(tuple(logits.shape) == (2, 3), f"logits have shape {tuple(logits.shape)}, not (2, 3)")
    rows = longer(toy(name).load("test")[:16])
    written = modality.default_trigger()(rows.x, RowRng(0, torch.arange(16)))
    demand(bool(modality.tells(rows.x, written).all()), "reads too little of a row to see where triggers are placed")
    return Outcome(True)


_ROLES: dict[type[Method], Callable[[Any, str, bool], Outcome]] = {
    Attack: run_attack,
    InputDetector: defenses.run_input,
    ModelDetector: defenses.run_model,
    DataFilter: defenses.run_filter,
    Training: defenses.run_training,
    Repair: defenses.run_repair,
    Aggregator: defenses.run_aggregator,
    Network: run_network,
}
