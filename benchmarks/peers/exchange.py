"""What every tool is handed: a folder with a victim, its description and its data, in plain formats.

victim.safetensors    the state dict of a SmallCNN
description.json      "victim" (SmallCNN's arguments), "attack", "clean_accuracy", "attack_success", "made_with"
data.safetensors      images uint8 (N, C, H, W), labels int64 (N,):
    clean_images, clean_labels            the training set before poisoning
    train_images, train_labels, poisoned  the training set the victim saw, and which rows (bool)
    filter_rows                           the training rows that the data filters are given, ascending
    test_images, test_labels              the clean test set
    triggered_images                      the stamped test images of `triggered_rows`, none of the target class
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
WORK: dict[str, Any] = json.loads(Path(__file__).with_name("work.json").read_text())


@dataclass(frozen=True)
class Exchange:
    """An exchange folder in memory. Images are uint8; `floats` gives what a model takes."""

    network: nn.Module
    description: dict[str, Any]
    data: dict[str, Tensor]

    @property
    def attack(self) -> dict[str, Any]:
        attack: dict[str, Any] = self.description["attack"]
        return attack

    def floats(self, name: str, rows: Tensor | slice = slice(None)) -> Tensor:
        """Images `name` as float32 in [0, 1], shape (N, C, H, W)."""
        return self.data[name][rows].float() / 255

    def strip_rows(self) -> Tensor:
        """Positions in `triggered_rows` of the STRIP inputs; `triggered_rows` of them are the same images, clean."""
        return torch.arange(WORK["works"]["strip"]["inputs"])


def save(folder: Path, network: nn.Module, description: Mapping[str, Any], data: Mapping[str, Tensor]) -> None:
    """Write the exchange folder; the description goes last, so that a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "victim.safetensors")
    save_file({k: v.contiguous() for k, v in data.items()}, folder / "data.safetensors")
    (folder / "description.json").write_text(json.dumps(dict(description), indent=2) + "\n")


def load(folder: Path) -> Exchange:
    """Read an exchange folder; the network is in evaluation mode."""
    description = json.loads((folder / "description.json").read_text())
    network = small_cnn(description["victim"])
    network.load_state_dict(load_file(folder / "victim.safetensors"))
    return Exchange(network.eval(), description, load_file(folder / "data.safetensors"))


def recipe() -> dict[str, Any]:
    """The part of work.json that an exchange folder depends on; a folder made with another one is stale."""
    return {name: WORK[name] for name in ("seed", "victim", "training", "attack", "filter")}


def usable(folder: Path) -> bool:
    """Whether the folder is whole, made with this recipe, and loads into the SmallCNN of today."""
    try:
        return bool(load(folder).description["made_with"] == recipe())
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError):
        return False


def small_cnn(arguments: Mapping[str, Any]) -> nn.Module:
    """The victim's class; from its source file alone where torchbands is not installed, as in a peer's environment."""
    if importlib.util.find_spec("torchbands") is None:
        for name in ("torchbands", "torchbands.networks"):
            package = types.ModuleType(name)
            package.__path__ = [str(ROOT / "src" / name.replace(".", "/"))]
            sys.modules[name] = package
    network: nn.Module = importlib.import_module("torchbands.networks.small_cnn").SmallCNN(**arguments)
    return network


def parts(network: Any) -> tuple[nn.Module, nn.Module]:
    """The same network as (everything up to the features (N, D), the linear head), for tools that want it cut there."""
    body = copy.deepcopy(network)
    body.head = nn.Identity()
    return body.eval(), network.head
