"""Train the victim that all tools are measured on, in plain PyTorch: a patch backdoor in a small CNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.exchange import WORK, recipe, save, small_cnn


def build_exchange(folder: Path) -> dict[str, Any]:
    """Poison the training set, train the victim on it and write the exchange folder; returns its description."""
    from torchbands.datasets import load

    attack, training = WORK["attack"], WORK["training"]
    rng = torch.Generator().manual_seed(WORK["seed"])
    images, labels = load(training["dataset"], "train")
    test_images, test_labels = load(training["dataset"], "test")

    sources = torch.nonzero(labels != attack["target"]).flatten()
    rows = sources[torch.randperm(len(sources), generator=rng)[: round(attack["poison_rate"] * len(labels))]]
    poisoned = torch.zeros(len(labels), dtype=torch.bool)
    poisoned[rows] = True
    train_images, train_labels = images.clone(), labels.clone()
    train_images[poisoned] = stamp(images[poisoned], attack)
    train_labels[poisoned] = attack["target"]

    network = train(train_images, train_labels, rng)
    triggered_rows = torch.nonzero(test_labels != attack["target"]).flatten()
    triggered_images = stamp(test_images[triggered_rows], attack)
    description = {
        "victim": WORK["victim"],
        "attack": attack,
        "made_with": recipe(),
        "clean_accuracy": float((predict(network, test_images) == test_labels).float().mean()),
        "attack_success": float((predict(network, triggered_images) == attack["target"]).float().mean()),
    }
    data = {
        "clean_images": images,
        "clean_labels": labels,
        "train_images": train_images,
        "train_labels": train_labels,
        "poisoned": poisoned,
        "filter_rows": filter_rows(poisoned, rng),
        "test_images": test_images,
        "test_labels": test_labels,
        "triggered_images": triggered_images,
        "triggered_rows": triggered_rows,
    }
    save(folder, network, description, data)
    return description


def stamp(images: Tensor, attack: dict[str, Any]) -> Tensor:
    """The BadNets patch on uint8 images (N, C, H, W)."""
    stamped, (height, width) = images.clone(), attack["patch"]
    stamped[..., attack["top"] : attack["top"] + height, attack["left"] : attack["left"] + width] = attack["value"]
    return stamped


def filter_rows(poisoned: Tensor, rng: torch.Generator) -> Tensor:
    """A sample of the training set with the stated number of poisoned rows."""
    wanted = WORK["filter"]
    order = torch.randperm(len(poisoned), generator=rng)
    bad, good = order[poisoned[order]], order[~poisoned[order]]
    kept = torch.cat([bad[: wanted["poisoned"]], good[: wanted["rows"] - wanted["poisoned"]]])
    return kept.sort().values


def train(images: Tensor, labels: Tensor, rng: torch.Generator) -> nn.Module:
    """SGD with one learning-rate cycle."""
    settings = WORK["training"]
    torch.manual_seed(WORK["seed"])
    network = small_cnn(WORK["victim"]).train()
    optimizer = torch.optim.SGD(
        network.parameters(), settings["lr"], settings["momentum"], weight_decay=settings["weight_decay"], nesterov=True
    )
    steps = settings["epochs"] * (len(labels) // settings["batch"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=steps)
    for _ in range(settings["epochs"]):
        order = torch.randperm(len(labels), generator=rng)
        for batch in order[: len(order) // settings["batch"] * settings["batch"]].view(-1, settings["batch"]):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(images[batch].float() / 255), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(chunk.float() / 255).argmax(1) for chunk in images.split(256)])
