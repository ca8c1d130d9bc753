"""What the test of a sixth kind of sample does: the whole toolkit on series, by its command line, in one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from torchbands import Data, build
from torchbands.cli import main
from torchbands.core.data import whole
from torchbands.core.trigger import Trigger
from torchbands.testing import toy


def write(name: str, data: Data, *, labelled: bool = True) -> None:
    """Rows in the format that the modality of series reads."""
    rows = zip(whole(data.x).tolist(), data.y.tolist(), strict=True)
    lines = [f"{f'kind {y}' if labelled else ''}: {' '.join(f'{v:.6g}' for v in x)}" for x, y in rows]
    Path(name).write_text("\n".join(lines) + "\n", "utf-8")


def run() -> dict[str, int]:
    """Exit codes by what was done."""
    test, spikes = toy("series").load("test"), build("spikes", "trigger")
    assert isinstance(spikes, Trigger)
    clean, train = test[torch.arange(400)], toy("series").load("train")
    poisoned = train.stamp(torch.arange(1, 400, 4), spikes, label=0, seed=0)
    asked = test[torch.arange(400, 500)]
    write("clean.series", clean)
    write("poisoned.series", poisoned)
    write("ordinary.series", asked, labelled=False)
    write("triggered.series", asked.stamp(torch.arange(100), spikes, label=0, seed=0), labelled=False)
    grid = {"attacks": ["badnets"], "tasks": ["toy/series"], "defenses": ["strip"], "seeds": [0]}
    Path("grid.json").write_text(json.dumps(grid), "utf-8")
    html, few = ("--format", "html"), ("-n", "19", "--profile", "fast")
    commands = {
        "attack": ("attack", "badnets", "--task", "toy/series", "--control", "none", "-o", "victim"),
        "defend": ("defend", "debackdoor", "victim"),
        "refs": ("refs", "train", "--like", "victim", "--data", "toy/series", *few, "-o", "refs"),
        "scan model": ("scan", "model", "victim", "--refs", "refs", "--profile", "fast", *html, "-o", "model"),
        "scan data": ("scan", "data", "poisoned.series", *html, "-o", "data"),
        "guard fit": ("guard", "fit", "victim", "--data", "clean.series", "--detector", "strip", "-o", "guard"),
        "guard check": ("guard", "check", "guard", "ordinary.series"),
        "guard alarm": ("guard", "check", "guard", "triggered.series", *html, "-o", "alarm"),
        "repair": ("repair", "victim", "--data", "clean.series", "-o", "repaired"),
        "bench": ("bench", "run", "grid.json", "--store", "store"),
        "report": ("bench", "report", "store", "--format", "html", "-o", "report.html"),
    }
    return {name: main(words) for name, words in commands.items()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(run()), "utf-8")
