"""How long a run will still take: finished cells are never work, and say how long others of their kind take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torchbands import bench
from torchbands.bench.eta import Left, seconds_of, with_time
from torchbands.bench.store import Store
from torchbands.cli.console import _short

LEARNER = {"name": "sgd", "epochs": 1}
GRID: dict[str, Any] = {
    "tasks": [{"name": "toy/image", "learner": LEARNER}],
    "attacks": ["badnets"],
    "defenses": ["spectral-signatures", "fine-pruning(epochs=1)"],
    "seeds": [0, 1],
}


def told(store: Path, grid: dict[str, Any]) -> tuple[list[tuple[int, int, str]], bench.Summary]:
    seen: list[tuple[int, int, str]] = []
    summary = bench.run(grid, store, progress=lambda done, total, what, part: seen.append((done, total, what)))
    return seen, summary


def test_the_time_left_is_that_of_the_nearest_kind() -> None:
    left = Left()
    assert left.told([("victim", "t", "a")]) == "" and with_time("x", left, [("victim",)]) == "x"
    left.saw(("victim", "t", "a"), 100.0)
    left.saw(("victim", "t", "b"), 300.0)
    left.saw(("victim", "t", "b"), None)
    assert (
        left.of(("victim", "t", "a")) == 100 and left.of(("victim", "t", "c")) == left.of(("victim", "u", "c")) == 200
    )
    assert left.told([("victim", "t", "a"), ("victim", "u", "c")]) == "about 5 min left"
    assert left.told([("victim", "t", "a"), ("defense", "d")]) == "at least 2 min left"
    assert with_time("x", left, [("victim", "t", "b")]) == "x · about 5 min left"


def test_a_long_name_is_cut_before_the_time_that_is_left() -> None:
    shown = _short(f"{'vision/fashion-mnist · ' * 4}seed 0 · at least 12 min left")
    assert len(shown) == 60 and shown.endswith("… · at least 12 min left") and _short("x" * 70) == "x" * 59 + "…"


@pytest.mark.parametrize("cost", [None, {}, {"seconds": None}, {"seconds": True}, {"seconds": "1"}, []])
def test_a_record_without_a_time_says_nothing(cost: Any) -> None:
    assert seconds_of({"status": "done", "cost": cost}) is None and seconds_of(None) is None
    assert seconds_of({"status": "not-applicable", "cost": {"seconds": 1.0}}) is None


def test_finished_cells_are_done_from_the_first_line_on_and_no_work(tmp_path: Path) -> None:
    first, summary = told(tmp_path / "store", GRID)
    assert summary.failed == 0 and first[0][0] == 0 and first[-1][:2] == (12, 12)
    assert "left" not in first[0][2] and "about" in first[-2][2] and first[-2][2].endswith("left")
    store = Store(tmp_path / "store")
    lost = [r for r in store.records("records") if r["defense"] == "fine-pruning" and r["seed"] == 1]
    for record in lost:
        record["cost"]["seconds"] = 1.0
    kept = [r for r in store.records("records") if r["defense"] == "fine-pruning" and r["seed"] == 0]
    for record in kept:  # as if they had taken long: the two that are missing will too
        record["cost"]["seconds"] = 600.0
        store.write_record(record)
    for record in lost:
        (tmp_path / "store" / "records" / f"{record['key']}.json").unlink()
    again, summary = told(tmp_path / "store", GRID)
    assert (summary.found, summary.computed) == (10, 2)
    assert [line[0] for line in again] == [10, 11, 12], again  # none of the ten is counted as it goes by
    assert again[0][2].endswith("about 20 min left")
    last, summary = told(tmp_path / "store", GRID)
    assert last == [(12, 12, "finished")] and summary.found == 12
