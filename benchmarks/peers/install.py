"""Install the peers into `.peers/`, an environment of their own, so that their requirements touch nothing here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.exchange import ROOT

FOLDER = ROOT / ".peers"
TORCH = "torch==2.13.0"
LINES = (
    [TORCH, "adversarial-robustness-toolbox", "packaging", "safetensors"],  # the toolbox does not declare packaging
    [
        TORCH,
        "matplotlib",
        "pyyaml",
        "pandas",
        "pillow",
        "scikit-image",
        "scikit-learn",
        "tqdm",
    ],  # what trojanzoo declares,
    ["--no-deps", "trojanzoo"],  # less torchvision: see torchvision_stub.py
)


def python(folder: Path = FOLDER) -> Path:
    """The interpreter of the peers' environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(folder: Path = FOLDER) -> Path:
    """Create the environment if it is not there, with the newest releases of the peers; returns its interpreter."""
    done = folder / "installed.json"
    if done.is_file() and json.loads(done.read_text()) == [list(line) for line in LINES]:
        return python(folder)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for line in LINES:
        print("pip install", *line, flush=True)
        command = [str(python(folder)), "-m", "pip", "install", "--quiet", "--upgrade", *line]
        subprocess.run(command, check=True)
    done.write_text(json.dumps(LINES) + "\n")
    return python(folder)


if __name__ == "__main__":
    print(ensure())
