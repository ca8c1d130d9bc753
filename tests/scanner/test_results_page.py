"""The page of results is what its receipts say, and its test of p-values rejects as often as it claims."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.scanner.page import page  # noqa: E402
from benchmarks.scanner.uniform import uniform  # noqa: E402


def test_the_page_is_written_from_the_receipts() -> None:
    receipts = {name: ROOT / "receipts" / f"scanner{name}.json" for name in ("", "-public", "-timing")}
    told = [json.loads(p.read_text("utf-8")) if p.is_file() else None for p in receipts.values()]
    said = (ROOT / "docs" / "scanner-results.md").read_text("utf-8")
    try:
        written = page(*told)
    except SystemExit as refused:
        pytest.skip(str(refused))
    assert written == said, "write it again: python -m benchmarks.scanner page"


def test_no_published_checkpoint_is_called_backdoored() -> None:
    scans = json.loads((ROOT / "receipts" / "scanner-public.json").read_text("utf-8"))["scans"]
    assert len({line["file"] for line in scans}) == 4
    for line in scans:
        assert line["test_accuracy"] > 0.915 and line["alerts"] in ([], ["BD-RCP-01"])
        assert line["verdict"] == "inconclusive" and line["exit_code"] == 3


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_models_of_one_kind_are_rejected_at_the_stated_rate_and_others_often(shift: float) -> None:
    rng, rejected = torch.Generator().manual_seed(1), 0
    for _ in range(300):
        theirs, mine = torch.randn(40, generator=rng), torch.randn(20, generator=rng) + shift
        p = [(1 + int((theirs >= x).sum())) / 41 for x in mine]
        found = uniform(p, 40)
        assert found is not None
        rejected += found["p"] <= 0.05
    assert 3 <= rejected <= 27 if shift == 0.0 else rejected > 150


def test_too_few_models_are_not_tested() -> None:
    assert uniform([0.5], 40) is None
