"""For authors of methods: tiny synthetic tasks of every kind, and the contract that every method must pass.

    from torchbands.testing import check_method, toy
    check_method("my-attack")                      # raises ContractError, naming the rule that is broken
    victim = build("badnets").run(toy("text"), 0)  # trains in about a second

With pytest, one line covers a package's methods:

    test_contract = contract_test("my-attack", "my-detector")
"""

from __future__ import annotations

from torchbands.testing.checks import Outcome
from torchbands.testing.contract import check_method, contract_cases, contract_method, contract_test
from torchbands.testing.fixtures import ContractError
from torchbands.testing.toys import MODALITIES, TOYS, Toy, toy

__all__ = [
    "MODALITIES",
    "TOYS",
    "ContractError",
    "Outcome",
    "Toy",
    "check_method",
    "contract_cases",
    "contract_method",
    "contract_test",
    "toy",
]
