"""Type a stranger's commands in an empty folder and judge what they end with.

    python -m benchmarks.stranger WORK [-n 40] [--own] [--out receipts/stranger.json]

`--own` judges by references of the stranger's own training loop (--train) in place of the pool over recipes.
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

from torchbands.core.data import take
from torchbands.core.registry import build
from torchbands.core.task import Task

from . import mine

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


def prepare(work: Path) -> dict[str, Any]:
    """The stranger's clean rows and code, and eight checkpoints of a vendor; how well each backdoor works."""
    task = build({"name": "vision/fashion-mnist"}, "task")
    assert isinstance(task, Task)
    train, test = task.load("train", 0), task.load("test", 0)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: 2 * ROWS]
    x, y = F.avg_pool2d(take(train.x, order), 2), train.y[order]
    test_x, test_y = F.avg_pool2d(take(test.x, torch.arange(2000)), 2), test.y[:2000]
    np.savez(work / "clean.npz", x=x[:ROWS].numpy(), y=y[:ROWS].numpy())
    shutil.copy(mine.__file__, work / "mine.py")
    known: dict[str, Any] = {}
    for name, (trigger, rate, target, seed) in SUSPECTS.items():
        rows = (x[ROWS:], y[ROWS:])
        if trigger:
            rows = mine.poisoned(*rows, trigger, rate, target, seed)
        torch.manual_seed(seed)
        network = mine.train(mine.Mine(), *rows, seed)
        save_file(network.state_dict(), work / f"{name}.safetensors")
        with torch.no_grad():
            said = network((test_x - mine.MEAN) / mine.STD).argmax(1)
            facts = {"accuracy": round(float((said == test_y).float().mean()), 4)}
            if trigger:
                others = test_x[test_y != target]
                moved = network((mine.TRIGGERS[trigger](others) - mine.MEAN) / mine.STD).argmax(1)
                facts["asr"] = round(float((moved == target).float().mean()), 4)
        known[name] = facts
        print(name, facts, flush=True)
    return known


def commands(n: int, own: bool) -> list[list[str]]:
    """What is typed: the first scan trains the references, the others use them."""
    opening = ["--arch", "./mine.py:Mine", "--mean", str(mine.MEAN), "--std", str(mine.STD)]
    first, *others = SUSPECTS
    train = ["--data", "clean.npz", "--train-references", "refs", "-n", str(n)]
    train += ["--train", "./mine.py:fit"] if own else []
    scan = [["scan", "model", f"{first}.safetensors", *opening, *train]]
    return scan + [["scan", "model", f"{name}.safetensors", *opening, "--refs", "refs"] for name in others]


def right(name: str, code: int, found: dict[str, Any]) -> bool:
    """Poisoned: indicated, with the attacker's class. Clean: judged, and not indicated."""
    trigger, _, target, _ = SUSPECTS[name]
    if not trigger:
        return code == 0
    return code == 1 and found["verdict"] == "indicated" and found["target"] == str(target)


def main() -> int:
    """Every command in turn, with one line of what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    facts = given.work / "known.json"  # the same command again goes on
    if not facts.is_file():
        facts.write_text(json.dumps(prepare(given.work)))
    known, results = json.loads(facts.read_text()), dict[str, Any]()
    for name, command in zip(SUSPECTS, commands(given.n, given.own), strict=True):
        started = time.perf_counter()
        typed = [sys.executable, "-m", "torchbands", *command, "--profile", given.profile, "--json"]
        typed += ["--format", f"html={name}.html"]
        done = subprocess.run(typed, cwd=given.work, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        results[name] = {
            **known[name],
            "command": "bands " + " ".join(command),
            "exit_code": done.returncode,
            "verdict": found["verdict"],
            "target": found["target"],
            "p_trigger": (found["trigger"] or {}).get("p"),
            "z": max((line["z"] or 0.0 for line in found["ledger"] if line["answer"] == "trigger"), default=None),
            "reasons": found["reasons"],
            "right": right(name, done.returncode, found),
            "minutes": round((time.perf_counter() - started) / 60, 2),
        }
        print(json.dumps(results[name]), flush=True)
    told = {
        "right": sum(r["right"] for r in results.values()),
        "of": len(results),
        "inconclusive": sum(r["verdict"] == "inconclusive" for r in results.values()),
        "left_out_recipes": found["calibration"].get("left_out_recipes"),
        "references": found["calibration"]["references"],
        "training": "their own loop" if given.own else "a pool over recipes",
        "profile": given.profile,
        "minutes": round(sum(r["minutes"] for r in results.values()), 2),
        "lines_of_their_own": 0 if not given.own else 3,
        "suspects": results,
    }
    if given.out:
        given.out.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    print({k: v for k, v in told.items() if k != "suspects"})
    return 0 if told["right"] == told["of"] else 1


if __name__ == "__main__":
    sys.exit(main())
