"""Seconds and memory of a scan at the size of a CIFAR ResNet-18: `python -m benchmarks.scanner.timing`.

References do not change the cost of looking, so none are trained; the network is as it was drawn, for which no search
ends early.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.fresh import versions
from torchbands.core.model import Model
from torchbands.core.seeding import seeded
from torchbands.measures.cost import measured
from torchbands.networks import PreActResNet18Network
from torchbands.scanner.views import look, views_of
from torchbands.tasks.vision import CIFAR10


def main() -> None:
    """Write receipts/scanner-timing.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profiles", nargs="+", default=["fast"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    task = CIFAR10(network=PreActResNet18Network())
    with seeded("timing"):
        model = Model(task.network.build(task.modality, task.classes), task.modality, task.classes)
    clean = task.load("clean").sample(1000, "timing", balanced=True)
    path = Path("receipts/scanner-timing.json")
    told: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for profile in given.profiles:
        with measured(model) as cost:
            seen = look(model, clean, views_of(profile, model))
        told[f"{profile}, {given.threads} threads"] = {
            **{k: round(v, 1) for k, v in cost.values().items() if isinstance(v, float)},
            "views": {s.view.name: round(s.seconds, 1) for s in seen},
            "methods": versions(task, *(s.view.detector for s in seen)),
            "load": round(os.getloadavg()[0], 1),
            "parameters": sum(p.numel() for p in model.module.parameters()),
        }
        path.write_text(json.dumps(told, indent=1) + "\n")
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
