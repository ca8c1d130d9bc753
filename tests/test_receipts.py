"""A page never shows the numbers of another version of a method than the one that is installed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import receipts, unfinished  # noqa: E402
from benchmarks.fresh import refuse_stale, stale, versions  # noqa: E402
from benchmarks.scanner.page import page as scanner_page  # noqa: E402
from benchmarks.text import page as text_page  # noqa: E402

import report_store  # noqa: E402
from torchbands import bench, report  # noqa: E402
from torchbands.bench.grid import HARNESS  # noqa: E402
from torchbands.bench.store import Store  # noqa: E402
from torchbands.core.registry import build, find  # noqa: E402


def receipt() -> dict[str, Any]:
    grid = bench.load_grid({"tasks": ["vision/digits"], "attacks": ["badnets"], "defenses": ["strip", "repair/anp"]})
    return {"harness": HARNESS, "grid": grid.spec(), "tasks": []}


def test_a_receipt_of_the_installed_versions_is_fresh_and_any_other_says_what_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = json.loads(json.dumps(receipt()))
    refuse_stale([("r.json", made, "make r")])
    monkeypatch.setattr(find("anp", "repair"), "version", 77)
    monkeypatch.setattr(find("small-cnn", "network"), "version", 78)  # a part of the task
    found = stale(made)
    assert len(found) == 2 and any("repair/anp was of version" in why and "installed is 77" in why for why in found)
    with pytest.raises(SystemExit, match=r"(?s)r.json is not shown.*small-cnn.*installed is 78.*again: make r"):
        refuse_stale([("r.json", made, "make r")])
    monkeypatch.undo()
    assert stale(made | {"harness": HARNESS - 1}) == [
        f"the harness was of version {HARNESS - 1}, installed is {HARNESS}"
    ]
    assert "not installed" in stale({"methods": {"repair/gone": 1}})[0]
    assert "does not say" in stale({"rows": [1], "decree": build("decree").spec()})[0]


def test_versions_are_those_of_nested_methods_too() -> None:
    task = build("vision/digits", "task")
    told = versions(task, build("unlearn").spec())
    assert {"task/vision/digits", "network/small-cnn", "learner/sgd", "repair/unlearn"} <= set(told)
    assert stale({"methods": told}) == []


def test_every_page_refuses_a_stale_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "receipts").mkdir()
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    old = {"methods": {"input-detector/strip": 0}}
    for name in ("vision", "text"):
        (tmp_path / "receipts" / f"{name}.json").write_text(json.dumps(old))
    said = "input-detector/strip was of version 0"
    with pytest.raises(SystemExit, match=said):
        receipts._write_docs()
    with pytest.raises(SystemExit, match=said):
        text_page.main()
    with pytest.raises(SystemExit, match=rf"(?s)scanner.json, fashion is.*{said}.*make --settings fashion"):
        scanner_page({"settings": {"fashion": old}})
    assert not list((tmp_path / "docs").iterdir())


def test_a_report_of_a_store_says_what_its_receipt_is_judged_by(tmp_path: Path) -> None:
    folder = report_store.write(tmp_path / "s", seeds=1)
    kept = json.loads((folder / "grid.json").read_text())
    made = receipt()
    (folder / "grid.json").write_text(json.dumps(kept | {"harness": made["harness"], "grid": made["grid"]}))
    written = json.loads(report.write(folder, None, ["json"])[0].read_text())
    assert stale(written) == []


def test_what_a_sitting_measured_is_taken_up_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only victims with missing defenses, and controls that are still asked for, are trained again."""
    monkeypatch.chdir(tmp_path)
    learner = {"name": "sgd", "epochs": 1, "batch": 256, "lr": 0.1}
    grid: dict[str, Any] = {
        "tasks": [{"name": "vision/digits", "learner": learner}],
        "attacks": ["badnets", "blended"],
        "defenses": ["repair/channel-lipschitz", {"name": "fine-tune", "epochs": 1}],
        "seeds": [0],
    }
    first = Path("first")

    def end_early(done: int, cells: int, what: str, _: float) -> None:
        if "blended" in what and "fine-tune" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(grid, first, progress=end_early)
    assert unfinished.keep("toy", first) == 3 + 5
    shutil.rmtree(first)
    # the clean and the blended victim are trained again: one is a control, the other lacks a defense
    assert unfinished.take_up("toy", grid, Path("second")) == 1 + 5
    summary = bench.run(grid, "second")
    assert (summary.computed, summary.found, summary.failed) == (3, 6, 0)
    whole = bench.run(grid, "whole")
    assert whole.computed == 9

    def numbers(store: str) -> Any:
        kept = Store(store)
        return {r["key"]: r["metrics"] for kind in ("outcomes", "records") for r in kept.asked(kind)}

    assert numbers("second") == numbers("whole")
    report.write("second", "out.json", ("json",))
    unfinished.done("toy")
    assert not unfinished.path_of("toy").exists() and unfinished.take_up("toy", grid, Path("third")) == 0
