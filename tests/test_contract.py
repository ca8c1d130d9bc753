"""Every registered method passes the public contract; the contract itself catches what it is there to catch."""

from __future__ import annotations

from torchbands.testing import contract_test

test_contract = contract_test()
