"""The engine: resume, kill, failures as records, controls, the validity gate, and what a defense may see."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torchbands import bench, report
from torchbands.bench.store import Store
from torchbands.core.attack import Victim
from torchbands.core.data import Data, Overlay
from torchbands.core.defense import DataFilter, Finding, ModelDetector, Suspicion, Training
from torchbands.core.errors import InputError, NotApplicable, UnknownName
from torchbands.core.model import Model, fast_dtype
from torchbands.core.recipe import Progress, Recipe
from torchbands.core.registry import build
from torchbands.core.task import Task

GRID: dict[str, Any] = {
    "tasks": [{"name": "vision/digits", "learner": {"name": "sgd", "epochs": 4, "batch": 64, "lr": 0.1}}],
    "attacks": ["badnets", {"name": "badnets", "rate": 0.001}],
    "defenses": ["model-detector/channel-lipschitz", "spectral-signatures", {"name": "fine-tune", "epochs": 1}],
    "seeds": [0],
}


def _numbers(store: Path) -> dict[str, Any]:
    """Everything in a store that is a result; costs are measurements of the machine."""
    kept = Store(store)
    found = [*kept.records("outcomes"), *kept.records("records")]
    return {r["key"]: {k: v for k, v in r.items() if k not in ("cost", "versions", "sha256")} for r in found}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "store"
    summary = bench.run(GRID, folder)
    assert summary.failed == 0 and summary.found == 0
    return folder


def test_the_clean_attack_is_always_in_the_grid_and_comes_first() -> None:
    cells = bench.load_grid(GRID).victims()
    assert [c.attack.name for c in cells] == ["clean", "badnets", "badnets"]


def test_a_second_run_computes_nothing(store: Path) -> None:
    before = _numbers(store)
    summary = bench.run(GRID, store)
    assert summary.computed == summary.failed == summary.declined == 0
    assert summary.found == 12
    assert _numbers(store) == before


def test_adding_an_axis_keeps_what_was_computed(store: Path) -> None:
    wider = {**GRID, "defenses": [*GRID["defenses"], "repair/channel-lipschitz"]}
    summary = bench.run(wider, store)
    assert summary.found == 12 and summary.computed == 3


def test_every_triggered_number_has_its_control(store: Path) -> None:
    for record in Store(store).records("outcomes"):
        metrics = record["metrics"]
        assert metrics["control_asr"] is not None and metrics["control_asr"] < 0.2
        assert metrics["lift"] == pytest.approx(metrics["asr"] - metrics["control_asr"], abs=1e-5)


def test_an_attack_that_did_not_take_is_called_invalid_by_the_floor_of_the_last_grid(store: Path) -> None:
    def attacks() -> dict[str, Any]:
        return {a.label: a for a in report.collect(store).tasks[0].attacks}

    found = attacks()
    assert found["badnets"].state == "done" and found["clean"].valid is None
    weak = found["badnets(rate=0.001)"]
    assert weak.state == "invalid" and "floor" in weak.reason
    assert bench.run({**GRID, "min_asr": 0.0}, store).computed == 0
    assert attacks()["badnets(rate=0.001)"].state == "done"
    bench.run(GRID, store)


def test_a_folder_with_other_images_is_not_found_finished(tmp_path: Path) -> None:
    def draw(part: str, shade: int) -> None:
        for name, rows in (("dark", slice(0, 8)), ("light", slice(8, 16))):
            (tmp_path / "images" / part / name).mkdir(parents=True, exist_ok=True)
            for n in range(12):
                pixels = np.full((16, 16), n, np.uint8)
                pixels[rows] += shade
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{n}.png")

    folder = {"name": "vision/folder", "path": str(tmp_path / "images"), "size": 8, "channels": 1, "held_out": 0.2}
    learner = {"name": "sgd", "epochs": 1, "batch": 8}
    grid = {"tasks": [{**folder, "learner": learner}], "attacks": ["clean"], "seeds": [0]}
    grid["defenses"] = ["model-detector/channel-lipschitz"]
    for part, shade in (("train", 100), ("test", 100)):
        draw(part, shade)
    assert bench.run(grid, tmp_path / "s").computed == 2
    assert bench.run(grid, tmp_path / "s").found == 2
    for part in ("train", "test"):  # the process that read the old images is the one that is asked again
        draw(part, 150)
        assert bench.run(grid, tmp_path / "s").computed == 2, part
    told = report.collect(tmp_path / "s")
    assert told.foreign == 4 and told.tasks[0].attacks[0].trained == 1


def test_other_devices_and_precisions_have_keys_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> list[str]:
        return [c.key for c in bench.load_grid(GRID).victims()]

    here = keys()
    assert keys() == here
    monkeypatch.setattr("torchbands.bench.grid.default_device", lambda: torch.device("meta"))
    elsewhere = keys()
    monkeypatch.undo()
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr("torchbands.bench.grid.fast_dtype", lambda _, dtype=dtype: dtype)
        elsewhere += keys()
    assert len(set(here + elsewhere)) == 3 * len(here), "one of the two precisions is that of this machine"


def test_a_defense_is_given_float32_and_what_it_computed_in_is_recorded(
    planted_victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)  # as if every device computed it
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    assert fast_dtype(planted_victim.model.device) is torch.bfloat16
    for name in ("mm-bd", "ban", "clean-logits", "fine-tune", "meta-sift"):
        short = {k: 1 for k in ("steps", "mask_steps", "restarts", "epochs", "sifters") if hasattr(build(name), k)}
        assert bench.judge(planted_victim, build(name).but(**short))["precision"] == "float32", name
    asking = build({"name": "target-inversion", "precision": "fast"})
    assert "bfloat16" in bench.judge(planted_victim, asking)["precision"]


def test_filters_of_one_victim_share_a_pass_and_cost_the_same_in_any_order(tmp_path: Path) -> None:
    told = []
    for at, order in enumerate((["activation-clustering", "spectral-signatures"],) * 2):
        grid = {**GRID, "attacks": ["clean"], "defenses": order[:: 1 - 2 * at]}
        bench.run(grid, tmp_path / str(at))
        found = Store(tmp_path / str(at)).records("records")
        told.append({r["defense"]: r["cost"]["forward_passes"] for r in found})
    assert told[0] == told[1] and min(told[0].values()) > 1000


def test_records_are_json_without_nan(store: Path) -> None:
    for path in store.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name, at=path.name: pytest.fail(f"{at} holds {name}"))


def test_undefined_is_null_with_a_reason(store: Path) -> None:
    clean = next(
        r for r in Store(store).records("records") if r["attack"] == "clean" and r["defense"] == "spectral-signatures"
    )
    assert clean["metrics"]["auroc"] is None and "rows" in clean["metrics"]["undefined"]["auroc"]


def test_every_record_tells_its_cost(store: Path) -> None:
    for record in Store(store).records("records"):
        assert {"seconds", "cpu_seconds", "peak_mb", "forward_passes", "clean_samples"} <= set(record["cost"])


def test_a_failing_cell_is_a_record_and_the_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = type(build("model-detector/channel-lipschitz"))

    def broken(*_: Any, **__: Any) -> Finding:
        raise RuntimeError("no luck")

    monkeypatch.setattr(detector, "inspect", broken)
    grid = {**GRID, "attacks": ["clean"]}
    summary = bench.run(grid, tmp_path / "s")
    assert summary.failed == 1
    failed = [r for r in Store(tmp_path / "s").records("records") if r["status"] == "failed"]
    assert failed[0]["reason"] == "RuntimeError: no luck" and "Traceback" in failed[0]["traceback"]
    monkeypatch.undo()
    assert bench.run(grid, tmp_path / "s").computed == 1, "a failed cell is tried again"


def test_a_training_that_diverges_is_a_failed_cell_and_the_sweep_goes_on(tmp_path: Path) -> None:
    wild = {"name": "vision/digits", "learner": {"name": "sgd", "epochs": 1, "lr": 1e30, "precision": "float32"}}
    grid = {**GRID, "tasks": [wild, *GRID["tasks"]], "attacks": ["clean"], "defenses": ["spectral-signatures"]}
    summary = bench.run(grid, tmp_path / "s")
    assert summary.failed == 2 and summary.computed == 2
    reasons = [r["reason"] for r in Store(tmp_path / "s").records("outcomes") if r["status"] == "failed"]
    assert len(reasons) == 1 and "learning rate" in reasons[0]


def test_a_damaged_victim_fails_its_cells_alone_and_is_made_again_as_told(tmp_path: Path) -> None:
    store, grid = tmp_path / "s", {**GRID, "attacks": ["badnets"], "defenses": []}
    bench.run(grid, store)
    planted = next(r["key"] for r in Store(store).records("outcomes") if r["attack"] == "badnets")
    weights = store / "victims" / planted / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    wider = {**grid, "defenses": ["spectral-signatures"]}
    summary = bench.run(wider, store)
    assert (summary.failed, summary.computed) == (1, 1), "the clean victim is whole"
    failed = next(r for r in Store(store).records("records") if r["status"] == "failed")
    assert "truncated" in failed["reason"] and f"outcomes/{planted}.json" in failed["reason"]
    (store / "outcomes" / f"{planted}.json").unlink()
    assert bench.run(wider, store).failed == 0


def test_declining_is_a_result(planted_victim: Victim, tmp_path: Path) -> None:
    grid = {**GRID, "attacks": [{"name": "wanet"}], "defenses": ["spectral-signatures"]}
    bench.run(grid, tmp_path / "s")
    record = next(r for r in Store(tmp_path / "s").records("records") if r["attack"] == "wanet")
    assert record["status"] == "not-applicable" and "controls training" in record["reason"]


def test_kill_and_resume_equals_an_uninterrupted_run(store: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.json"
    grid.write_text(json.dumps(GRID))
    code = (
        "import sys, torch; torch.set_num_threads(1)\nfrom torchbands import bench\nbench.run(sys.argv[1], sys.argv[2])"
    )
    killed = tmp_path / "killed"
    for _ in range(2):  # killed once early and once late
        process = subprocess.Popen([sys.executable, "-c", code, str(grid), str(killed)])
        want = len(list(killed.glob("*/*.json"))) + 2
        deadline = time.monotonic() + 120
        while process.poll() is None and len(list(killed.glob("*/*.json"))) < want and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finished = {p: p.stat().st_mtime_ns for p in killed.glob("*/[!.]*.json")}
    assert finished, "something was finished before the kill"
    subprocess.run([sys.executable, "-c", code, str(grid), str(killed)], check=True, timeout=300)
    assert all(p.stat().st_mtime_ns == then for p, then in finished.items()), "finished cells were not computed again"
    whole = tmp_path / "whole"
    subprocess.run([sys.executable, "-c", code, str(grid), str(whole)], check=True, timeout=300)
    assert _numbers(killed) == _numbers(whole)


def test_a_defense_sees_no_truth(planted_victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Data] = []

    class Nosy(DataFilter):
        name = "nosy"

        def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
            seen.append(data)
            return Suspicion(torch.zeros(len(data)))

    class NosyModel(ModelDetector):
        name = "nosy-model"

        def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
            seen.append(clean)
            return Finding(0.0)

    bench.judge(planted_victim, Nosy())
    bench.judge(planted_victim, NosyModel())
    assert seen[0].poisoned is None and not isinstance(seen[0].x, Overlay) and "cover" not in seen[0].meta
    assert len(seen[1]) == 0, "a method that asks for no clean rows gets none"


def test_a_detector_leaves_the_precision_that_repairs_are_judged_in(planted_victim: Victim) -> None:
    bench.judge(planted_victim, build("model-detector/channel-lipschitz"))
    assert planted_victim.model.precision == "float32"


def test_a_training_is_given_no_other_rows(planted_victim: Victim) -> None:
    seen: list[object] = []

    class Greedy(Training):
        name = "greedy"

        def train(self, recipe: Recipe, data: Data, *, seed: int = 0, progress: Progress | None = None) -> Model:
            seen.extend(_reachable(recipe))
            return recipe.fresh(seed)

    bench.judge(planted_victim, Greedy())
    assert planted_victim.task.network in seen and planted_victim.task.learner in seen
    assert not [part for part in seen if isinstance(part, (Task, Data))], "it has rows, or what loads them"


def _reachable(thing: object) -> list[object]:
    """What a frozen object holds, and what that holds."""
    parts = vars(thing).values() if dataclasses.is_dataclass(thing) else ()
    return [thing, *(found for part in parts for found in _reachable(part))]


def test_the_clean_split_is_disjoint_from_train_and_test(digits: Any) -> None:
    parts = [digits.load(name)[:].x.flatten(1) for name in ("train", "clean", "test")]
    assert len(parts[1]) > 0
    rows = {name: {bytes(r.numpy().tobytes()) for r in part} for name, part in zip("abc", parts, strict=True)}
    assert not rows["a"] & rows["b"] and not rows["b"] & rows["c"]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"atacks": []}, UnknownName, "attacks"),
        ({"attacks": ["badnet"]}, UnknownName, "badnets"),
        ({"attacks": [{"name": "badnets", "rat": 0.1}]}, UnknownName, "rate"),
        ({"attacks": [{"name": "badnets", "rate": "much"}]}, InputError, "much"),
        ({"attacks": [{"name": "badnets", "rate": 2.0}]}, InputError, "fraction"),
        ({"attacks": []}, InputError, "non-empty"),
        ({"defenses": ["badnets"]}, InputError, "not a defense"),
        ({"seeds": []}, InputError, "empty"),
        ({"seeds": [-1]}, InputError, "whole numbers"),
        ({"tasks": ["strip"]}, UnknownName, "task"),
    ],
)
def test_a_bad_grid_says_what_is_wrong(change: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        bench.load_grid({**GRID, **change})


def test_presets_load() -> None:
    assert {"quick", "vision", "population"} <= set(bench.presets())
    for name in bench.presets():
        grid = bench.load_grid(name)
        assert grid.victims() and grid.defenses


def test_not_applicable_keeps_its_reason() -> None:
    assert NotApplicable("because").reason == "because"
