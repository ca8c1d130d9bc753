"""Type a stranger's commands in an empty folder and judge what they end with.

    python -m benchmarks.stranger WORK [-n 40] [--own] [--clean 20] [--out receipts/stranger.json]
    python -m benchmarks.stranger --page

WORK keeps everything, and the same command again goes on where it stopped. `--own` judges by references of the
stranger's own training loop (--train) in place of the pool over recipes. `--clean` scans so many never-poisoned models
more, of the stranger's loop, to count false alarms. `--page` writes docs/stranger.md from the receipt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from torchbands.core.data import take
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.scanner.left_out import interval

from . import mine
from .page import PAGE, RECEIPT, page

#: Suspect -> trigger, rate, target class, seed. The vendor's rows are none of the stranger's.
SUSPECTS: dict[str, tuple[str, float, int, int]] = {
    "frame-5": ("frame", 0.05, 3, 1),
    "frame-1": ("frame", 0.01, 7, 2),
    "sinusoid-5": ("sinusoid", 0.05, 1, 3),
    "slash-5": ("slash", 0.05, 8, 4),
    "clean-a": ("", 0.0, 0, 5),
    "clean-b": ("", 0.0, 0, 6),
    "clean-c": ("", 0.0, 0, 7),
    "clean-d": ("", 0.0, 0, 8),
}
ROWS = 8000
#: The seed of the first further clean model.
FURTHER = 100


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures and labels: first the stranger's ROWS, then the vendor's; and those that nobody trains on."""
    task = build({"name": "vision/fashion-mnist"}, "task")
    assert isinstance(task, Task)
    train, test = task.load("train", 0), task.load("test", 0)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: 2 * ROWS]
    x, y = F.avg_pool2d(take(train.x, order), 2), train.y[order]
    return x, y, F.avg_pool2d(take(test.x, torch.arange(2000)), 2), test.y[:2000]


def sell(work: Path, name: str, trigger: str, rate: float, target: int, seed: int) -> dict[str, float]:
    """One checkpoint of the vendor, and how well it and its backdoor work."""
    x, y, test_x, test_y = rows()
    bought = (x[ROWS:], y[ROWS:])
    if trigger:
        bought = mine.poisoned(*bought, trigger, rate, target, seed)
    torch.manual_seed(seed)
    network = mine.train(mine.Mine(), *bought, seed)
    save_file(network.state_dict(), work / f"{name}.safetensors")
    with torch.no_grad():
        said = network((test_x - mine.MEAN) / mine.STD).argmax(1)
        facts = {"accuracy": round(float((said == test_y).float().mean()), 4)}
        if trigger:
            others = test_x[test_y != target]
            moved = network((mine.TRIGGERS[trigger](others) - mine.MEAN) / mine.STD).argmax(1)
            facts["asr"] = round(float((moved == target).float().mean()), 4)
    return facts


def prepare(work: Path) -> None:
    """The stranger's clean rows and code."""
    if not (work / "clean.npz").is_file():
        x, y, _, _ = rows()
        np.savez(work / "clean.npz", x=x[:ROWS].numpy(), y=y[:ROWS].numpy())
        shutil.copy(mine.__file__, work / "mine.py")


def command(name: str, n: int, own: bool) -> list[str]:
    """What is typed: the first scan trains the references, the others use them."""
    opening = ["--arch", "./mine.py:Mine", "--mean", str(mine.MEAN), "--std", str(mine.STD)]
    refs = ["--refs", "refs"]
    if name == next(iter(SUSPECTS)):
        refs = ["--data", "clean.npz", "--train-references", "refs", "-n", str(n)]
        refs += ["--train", "./mine.py:fit"] if own else []
    return ["scan", "model", f"{name}.safetensors", *opening, *refs]


def right(planted: tuple[str, float, int, int], code: int, found: dict[str, Any]) -> bool:
    """Poisoned: indicated, with the attacker's class. Clean: judged, and not indicated."""
    trigger, _, target, _ = planted
    if not trigger:
        return code == 0
    return code == 1 and found["verdict"] == "indicated" and found["target"] == str(target)


def scanned(
    work: Path, name: str, planted: tuple[str, float, int, int], typed: list[str], profile: str
) -> dict[str, Any]:
    """One suspect, sold and scanned; what came of it."""
    facts = sell(work, name, *planted)
    started = time.perf_counter()
    line = [sys.executable, "-m", "torchbands", *typed, "--profile", profile, "--json", "--format", f"html={name}.html"]
    done = subprocess.run(line, cwd=work, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return {
        **facts,
        "command": "bands " + " ".join(typed),
        "exit_code": done.returncode,
        "verdict": found["verdict"],
        "target": found["target"],
        "p_trigger": (found["trigger"] or {}).get("p"),
        "z": max((line["z"] or 0.0 for line in found["ledger"] if line["answer"] == "trigger"), default=None),
        "reasons": found["reasons"],
        "right": right(planted, done.returncode, found),
        "minutes": round((time.perf_counter() - started) / 60, 2),
        "references": found["calibration"].get("references"),
        "left_out_recipes": found["calibration"].get("left_out_recipes"),
    }


def main() -> int:
    """Every command in turn, with one line of what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--clean", type=int, default=0)
    parser.add_argument("--profile", default="full")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.page:
        PAGE.write_text(page(json.loads(RECEIPT.read_text("utf-8"))), encoding="utf-8")
        return 0
    if given.work is None:
        parser.error("WORK is missing: an empty folder, or one to go on with")
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    prepare(given.work)
    kept = given.work / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    further = {f"clean-{FURTHER + k}": ("", 0.0, 0, FURTHER + k) for k in range(given.clean)}
    for name, planted in (SUSPECTS | further).items():
        if name not in results:
            typed = command(name, given.n, given.own)
            results[name] = scanned(given.work, name, planted, typed, given.profile)
            kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(json.dumps(results[name]), flush=True)
    told = summed(results, given.own, given.profile)
    if given.out:
        given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print({k: v for k, v in told.items() if k != "suspects"})
    return 0 if told["right"] == told["of"] else 1


def summed(results: dict[str, Any], own: bool, profile: str) -> dict[str, Any]:
    """The receipt."""
    eight = {name: results[name] for name in SUSPECTS}
    further = [r for name, r in results.items() if name not in SUSPECTS]
    accused = sum(r["verdict"] == "indicated" for r in further)
    last = list(results.values())[-1]
    return {
        "right": sum(r["right"] for r in eight.values()),
        "of": len(eight),
        "inconclusive": sum(r["verdict"] == "inconclusive" for r in eight.values()),
        "left_out_recipes": last["left_out_recipes"],
        "references": last["references"],
        "training": "their own loop" if own else "a pool over recipes",
        "profile": profile,
        "minutes": round(sum(r["minutes"] for r in eight.values()), 2),
        "lines_of_their_own": 3 if own else 0,
        "suspects": {n: {k: v for k, v in r.items() if k != "left_out_recipes"} for n, r in eight.items()},
        "further_clean": {
            "scanned": len(further),
            "accused": accused,
            "inconclusive": sum(r["verdict"] == "inconclusive" for r in further),
            "interval": [round(v, 4) for v in interval(accused, len(further))] if further else None,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
