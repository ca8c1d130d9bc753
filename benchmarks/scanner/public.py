"""What `scan` says of never-poisoned checkpoints that others published: `python -m benchmarks.scanner.public`.

The four CIFAR-10 ResNets of akamaster/pytorch_resnet_cifar10 (200 epochs each). Nobody trains references of that recipe
in minutes: they are looked at without references, and ResNet-20 also with references of a far cheaper recipe.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.fresh import versions
from torchbands import __version__, scan
from torchbands.core.data import Data
from torchbands.core.recipe import Recipe
from torchbands.learners.sgd import SGD
from torchbands.networks import ResNetNetwork
from torchbands.networks.layers import Normalize
from torchbands.scanner.opening import Suspect, open_suspect
from torchbands.scanner.outcome import Outcome
from torchbands.scanner.recipes import OwnNetwork
from torchbands.scanner.reference_training import train_references
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.views import PROFILES
from torchbands.tasks.vision import CIFAR10
from torchbands.zoo.files import write_json

RECEIPT = Path("receipts/scanner-public.json")
#: Of ImageNet, as these checkpoints were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: As many as alpha 0.05 needs, of a recipe that costs seconds.
REFERENCES, ROWS = 19, 2000
CHEAP = SGD(epochs=2, batch=64, lr=0.1, augment="crop-flip", pad=4)


def main() -> None:
    """Write the receipt: one line for every scan."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scanner.public")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of resnet20-*.th and its like")
    parser.add_argument("--store", type=Path, default=Path("scanner-public"), help="where the references are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = CIFAR10()
    test = task.load("test")
    rows = test.sample(1000, "public", balanced=True)  # these checkpoints were trained on all of the training set
    lines: list[dict[str, Any]] = []
    for path in sorted(given.checkpoints.glob("resnet*.th")):
        suspect = opened(path)
        lines.append(looked(path, suspect, test, rows, None))
        if depth_of(path) == 20:
            lines.append(looked(path, suspect, test, rows, references(given.store, task, rows)))
        told = {
            "command": "python -m benchmarks.scanner.public --checkpoints DIR",
            "torchbands": __version__,
            "methods": versions(task, CHEAP, *(v.detector for v in PROFILES["fast"])),
            "source": "https://github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)",
            "rows": "1,000 rows of the CIFAR-10 test set",
            "scans": lines,
        }
        write_json(RECEIPT, told)
    print(f"written: {RECEIPT}")


def depth_of(path: Path) -> int:
    """20 of resnet20-12fca82f.th."""
    found = re.match(r"resnet(\d+)", path.name)
    assert found is not None, path
    return int(found[1])


def network_of(path: Path) -> ResNetNetwork:
    """The architecture that the name says."""
    return ResNetNetwork(depth=depth_of(path), shortcut="pad")


def opened(path: Path) -> Suspect:
    """As `bands scan model` opens it, with the normalisation of its recipe inside."""
    return open_suspect(
        path, arch=json.dumps(network_of(path).spec()), modality=CIFAR10().modality, classes=10,
        mean=MEAN, std=STD,
    )  # fmt: skip


def references(store: Path, task: CIFAR10, rows: Data) -> ReferenceSet:
    """Never-poisoned models of the same architecture and of the cheap recipe."""
    network = ResNetNetwork(depth=20, shortcut="pad")

    def fresh() -> nn.Module:
        module = network.build(task.modality, task.classes)
        module.normalize.load_state_dict(Normalize(3, MEAN, STD).state_dict())  # type: ignore[union-attr]
        return module

    recipe = Recipe(OwnNetwork(fresh, network.spec()), CHEAP, task.modality, task.classes)
    return train_references(
        store / "refs", recipe, task.load("train"), task.class_names, n=REFERENCES, rows=ROWS, clean=rows,
        profile="fast", label=task.name, progress=lambda done, total, what: print(what, done, "of", total, flush=True),
    )  # fmt: skip


def looked(path: Path, suspect: Suspect, test: Data, rows: Data, refs: ReferenceSet | None) -> dict[str, Any]:
    """One scan in the fast profile, and the accuracy that proves the loading right."""
    assert suspect.model is not None
    started = time.process_time()
    outcome: Outcome = scan(suspect.model, rows, refs, profile="fast", subject=suspect.subject())
    seconds = time.process_time() - started
    right = suspect.model.logits(test.x).argmax(1) == test.y
    line = {
        "file": path.name,
        "sha256": suspect.sha256,
        "test_accuracy": round(float(right.float().mean()), 4),
        "references": None if refs is None else refs.summary(),
        "verdict": outcome.verdict,
        "exit_code": outcome.exit_code(),
        "alerts": [a.rule for a in outcome.alerts],
        "reasons": list(outcome.reasons),
        "p_trigger": None if outcome.trigger is None else outcome.trigger.p,
        "p_recipe": None if outcome.recipe is None else outcome.recipe.p,
        "views": {v.view: {"score": v.score, "z": v.z, "target": v.target} for v in outcome.ledger},
        "cpu_seconds": round(seconds, 1),
    }
    print(json.dumps(line), flush=True)
    return line


if __name__ == "__main__":
    main()
