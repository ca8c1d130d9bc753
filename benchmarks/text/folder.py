"""A fine-tuned MiniLM folder with a backdoor, and one without, scanned as a user would.

    python -m benchmarks.text.folder [--store DIR]

Trains both (SST-2, 1,500 rows, 2 epochs; cf in 5 % of the rows), 19 references that begin from the same public encoder,
and runs `bands scan model` on the folders. What is in the store is not made again. Writes receipts/text-folder.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.fresh import versions
from torchbands import zoo
from torchbands.cli import main as bands
from torchbands.core.registry import build
from torchbands.networks.transformer import export
from torchbands.scanner.views import PROFILES
from torchbands.zoo.files import write_json

LEARNER = {"lr": 1e-4, "epochs": 2, "batch": 32, "weight_decay": 0.01}
NETWORK = {"role": "network", "name": "transformer"}
TASK = {
    "name": "text/sst2",
    "rows": 1500,
    "network": NETWORK,
    "learner": {"role": "learner", "name": "sgd", "optimizer": "adamw", **LEARNER},
}
VICTIMS = {
    "backdoored": ("badnets", "--rate", "0.05", "--target", "1", "--seed", "1"),
    "never-poisoned": ("clean", "--seed", "2"),
}


def main() -> None:
    """Make what is missing, scan, and write the receipt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("text-folder"))
    store: Path = parser.parse_args().store
    store.mkdir(parents=True, exist_ok=True)
    for name, attack in VICTIMS.items():
        victim = store / f"victim-{name}"
        if not victim.is_dir():
            run("attack", *attack, "--task", json.dumps(TASK), "--control", "none", "-o", str(victim))
        made = zoo.load(victim)
        export(made.model.module, store / name, tuple(made.task.class_names))
    like = ("--like", str(store / "backdoored"), "--arch", json.dumps(NETWORK), "--data", "text/sst2", "--rows", "1500")
    recipe = ("--recipe", json.dumps(LEARNER), "-n", "19", "--profile", "fast", "-o", str(store / "refs"))
    run("refs", "train", *like, *recipe)
    receipt = {name: scanned(store, name) for name in VICTIMS}
    attacks = [build(name, "attack") for name, *_ in VICTIMS.values()]
    views = [v.detector for v in PROFILES["fast"]]
    told = {"command": "python -m benchmarks.text.folder", "methods": versions(build(TASK, "task"), *attacks, *views)}
    write_json(Path("receipts/text-folder.json"), {**told, **receipt})
    print(json.dumps(receipt, indent=1))


def scanned(store: Path, name: str) -> dict[str, Any]:
    """What the command says of a folder."""
    told = store / f"{name}.json"
    reports = ("--format", f"json={told}", "--format", f"html={store / name}.html")
    code = bands(["scan", "model", str(store / name), "--refs", str(store / "refs"), "--profile", "fast", *reports])
    said = json.loads(told.read_text("utf-8"))
    return {
        "exit code": code,
        **{k: said.get(k) for k in ("verdict", "sentence", "target", "trigger", "recipe", "alerts", "ledger", "cost")},
    }


def run(*words: str) -> None:
    """A command that must succeed."""
    if code := bands(list(words)):
        raise SystemExit(f"bands {words[0]} ended with {code}")


if __name__ == "__main__":
    main()
