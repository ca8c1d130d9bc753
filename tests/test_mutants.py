"""The list of mutants fits the code: each patch applies once, and the tests that it names are there."""

from __future__ import annotations

from pathlib import Path

from mutant_list import MUTANTS

ROOT = Path(__file__).resolve().parent.parent


def test_every_patch_applies_and_names_are_told_apart() -> None:
    assert [trouble for mutant in MUTANTS if (trouble := mutant.trouble())] == []
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 54


def test_every_test_that_must_fail_is_there() -> None:
    for mutant in MUTANTS:
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8") or (
                file == "tests/test_contract.py" and name.startswith("test_contract[")
            ), f"{mutant.name}: there is no {test}"
