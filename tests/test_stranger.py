"""The page of the stranger's path is what its receipt says, and the harness counts as it should."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.stranger import mine  # noqa: E402
from benchmarks.stranger.__main__ import SUSPECTS, command, right, summed  # noqa: E402
from benchmarks.stranger.page import page  # noqa: E402

from torchbands.core.registry import listing  # noqa: E402


def test_the_page_is_written_from_the_receipt() -> None:
    told = json.loads((ROOT / "receipts" / "stranger.json").read_text("utf-8"))
    said = (ROOT / "docs" / "stranger.md").read_text("utf-8")
    assert page(told) == said, "write it again: python -m benchmarks.stranger --page"
    assert list(told["suspects"]) == list(SUSPECTS) and told["of"] == 8
    assert told["right"] == sum(r["right"] for r in told["suspects"].values())


def test_right_is_the_attackers_class_or_no_alarm() -> None:
    planted, clean = ("frame", 0.05, 3, 1), ("", 0.0, 0, 5)
    assert right(planted, 1, {"verdict": "indicated", "target": "3"})
    assert not right(planted, 1, {"verdict": "indicated", "target": "4"})
    assert not right(planted, 3, {"verdict": "inconclusive", "target": "3"})
    assert right(clean, 0, {"verdict": "none"}) and not right(clean, 3, {"verdict": "inconclusive"})
    results = {n: {"right": True, "verdict": "none", "minutes": 1.0, "left_out_recipes": None, "references": 40}
               for n in (*SUSPECTS, "clean-100", "clean-101")}  # fmt: skip
    results["clean-101"]["verdict"] = "indicated"
    told = summed(results, own=False, profile="full")
    assert (told["right"], told["further_clean"]["scanned"], told["further_clean"]["accused"]) == (8, 2, 1)


def test_what_the_stranger_brings_is_no_registered_attack() -> None:
    assert not set(mine.TRIGGERS) & {m.name for m in listing("attack")}
    assert "import torchbands" not in Path(mine.__file__).read_text()
    x = torch.rand(2, 1, 14, 14)
    assert all(bool((write(x) != x).any()) for write in mine.TRIGGERS.values())
    assert "--train-references" in command("frame-5", 40, own=False) and "--refs" in command("clean-a", 40, own=False)
