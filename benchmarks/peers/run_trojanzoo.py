"""The works done by trojanzoo, in its own environment.

What had to be supplied to run it at all:

- A stand-in for torchvision and the `matplotlib.cm.get_cmap` it still calls (`torchvision_stub.py`).
- The victim as trojanzoo's `_ImageModel` (features, pooling, flatten, classifier), with the same weights and the same
  logits, which is checked; the data as its `ImageSet` over tensors, without worker processes; `original=True`, so
  that the attack does not look for a checkpoint of its own.
- STRIP picks its own inputs among those that are classified correctly and attacked successfully; the stated inputs are
  put in instead, so that all tools score the same ones. Its `get_score` is wrapped only to keep the scores.
- Activation clustering wants clean and poisoned rows apart; they are given so, and it pools them itself.
- Neural Cleanse prepares its full-size mark inside `detect`, which also validates twice per class. The mark is prepared
  here as there, and `get_mark_loss_list`, the optimisation alone with one validation per class, is what is timed.
- Spectral signatures are no longer exported (commented out); the class itself is called.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.peers.contract import Clock, Measured, NotMeasurable, Work, auroc, main, row_quality, trigger_quality
from benchmarks.peers.exchange import Exchange
from benchmarks.peers.trojanzoo_setup import Recorded, Rows, Tensors, prepared, some

# isort: split
# trojanzoo_setup has put the stand-in for torchvision in place
from trojanvision.defenses import ActivationClustering, NeuralCleanse, Strip
from trojanvision.defenses.backdoor.training_filtering.spectral_signature import SpectralSignature
from trojanzoo.utils.data import dataset_to_tensor

Outcome = tuple[Measured, dict[str, Measured]]


def poisoning(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    clean, poisoned = exchange.floats("clean_images"), exchange.data["poisoned"]
    attack, _ = prepared(exchange, (clean, exchange.data["clean_labels"]), some(exchange), 100)
    count = int(poisoned.sum())
    with Clock() as clock:
        made = attack.get_poison_dataset(poison_num=count, seed=0)
    equal = torch.equal(attack.add_mark(clean[poisoned]), exchange.floats("train_images", poisoned))
    quality = {"rows": len(made), "equal": equal}

    if not variants:
        return Measured.of(clock, quality), {}
    pattern = torch.rand(Tensors.data_shape)
    attack.mark.load_mark(torch.cat([pattern, torch.ones_like(pattern[:1])]), already_processed=True)
    attack.mark.mark_height_offset = attack.mark.mark_width_offset = 0
    attack.mark.mark_alpha = alpha = work["blend_alpha"]
    with Clock() as blended:
        made = attack.get_poison_dataset(poison_num=count, seed=0)
    wanted = (1 - alpha) * clean[poisoned] + alpha * pattern
    error = float((attack.add_mark(clean[poisoned]) - wanted).abs().max())
    return Measured.of(clock, quality), {"blended": Measured.of(blended, {"rows": len(made), "largest_error": error})}


def strip(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    rows = exchange.data["triggered_rows"][exchange.strip_rows()]
    inputs, labels = exchange.floats("test_images", rows), exchange.data["test_labels"][rows]
    overlays = work["overlays"] * work["batch"]
    attack, common = prepared(exchange, some(exchange), some(exchange, overlays), work["batch"])
    torch.testing.assert_close(attack.add_mark(inputs), exchange.floats("triggered_images", exchange.strip_rows()))
    kept: list[torch.Tensor] = []

    class Given(Strip):  # type: ignore[misc]
        def get_test_data(self) -> tuple[torch.Tensor, list[int]]:
            return inputs, labels.tolist()

        def get_score(self, batch: torch.Tensor) -> torch.Tensor:
            kept.append(super().get_score(batch))
            return kept[-1]

    settings = {"strip_alpha": work["alpha"], "strip_sample_num": work["overlays"], "defense_input_num": work["inputs"]}
    with Clock() as clock:
        flagged = Given(**settings, **common).get_pred_labels()
    scores = torch.cat([torch.cat(kept[0::2]), torch.cat(kept[1::2])])
    truth = np.arange(len(scores)) >= len(inputs)
    found = {"true_positive_rate": float(flagged[len(inputs) :].float().mean()), "inputs": len(scores)}
    return Measured.of(clock, {"auroc": auroc(truth, -scores.numpy()), **found}), {}


def filter_parts(exchange: Exchange) -> tuple[Rows, Rows]:
    """The filters' rows, clean and poisoned ones apart."""
    rows = exchange.data["filter_rows"]
    images, labels, bad = (
        exchange.floats("train_images", rows),
        exchange.data["train_labels"][rows],
        exchange.data["poisoned"][rows],
    )
    return (images[~bad], labels[~bad]), (images[bad], labels[bad])


def activation_clustering(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    clean, bad = filter_parts(exchange)
    attack, common = prepared(exchange, clean, some(exchange), work["batch"])
    truth, labels = np.arange(len(clean[1]) + len(bad[1])) >= len(clean[1]), torch.cat([clean[1], bad[1]])
    outcome = {}
    for reduce in ("PCA", "FastICA") if variants else ("PCA",):
        order: list[int] = []
        common["dataset"].loader["train"] = SimpleNamespace(dataset=Recorded(clean, 0, order))
        attack.poison_set = Recorded(bad, len(clean[1]), order)
        with Clock() as clock:
            defence = ActivationClustering(
                nb_clusters=work["clusters"], nb_dims=work["components"], reduce_method=reduce, **common
            )
            flagged = defence.get_pred_labels().numpy()
        target = exchange.attack["target"]
        quality = row_quality(truth, labels, target, flagged=flagged)
        restored = np.empty_like(flagged)
        restored[order] = flagged
        quality["auroc_in_row_order"] = row_quality(truth, labels, target, flagged=restored)["auroc"]
        outcome[reduce] = Measured.of(clock, quality)
    return outcome.pop("PCA"), outcome


def spectral_signatures(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    clean, bad = filter_parts(exchange)
    train = torch.cat([clean[0], bad[0]]), torch.cat([clean[1], bad[1]])
    _, common = prepared(exchange, train, some(exchange), work["batch"])
    try:
        defence = SpectralSignature(clean_image_num=len(clean[1]), poison_image_num=len(bad[1]), **common)
        dataset_to_tensor(defence.get_clean_dataloader().dataset)
    except Exception as error:  # whatever it fails with is the finding
        raise NotMeasurable(f"not exported, and its class fails with {type(error).__name__}: {error}") from error
    raise RuntimeError("trojanzoo's spectral signatures run now: measure them")


def neural_cleanse(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    images = some(exchange, work["images"])
    limits = work["early_stop"]
    runs: dict[str, dict[str, Any]] = {
        "fixed": {"defense_remask_epoch": work["epochs"], "nc_patience": 1e9},
        "early-stop": {"defense_remask_epoch": limits["epochs"], "nc_patience": limits["patience"]},
    }
    outcome = {}
    for variant, settings in runs.items() if variants else [("fixed", runs["fixed"])]:
        attack, common = prepared(exchange, images, images, work["batch"])
        mark = attack.mark
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder, Clock() as clock:
            defence = NeuralCleanse(
                folder_path=folder, defense_remask_lr=work["lr"], cost=work["cost"], **settings, **common
            )
            defence.mark_random_pos = False
            mark.mark_height, mark.mark_width = mark.data_shape[-2:]
            mark.mark_height_offset = mark.mark_width_offset = 0
            mark.mark = torch.zeros(mark.mark.size(0), *mark.data_shape[-2:])
            marks, _, success = defence.get_mark_loss_list(verbose=False)
        norms = marks[:, -1].flatten(1).norm(p=1, dim=1)
        quality = trigger_quality(norms, exchange.attack["target"], [s / 100 for s in success])
        outcome[variant] = Measured.of(clock, quality)
    return outcome.pop("fixed"), outcome


if __name__ == "__main__":
    works: dict[str, Work] = {
        "poisoning": poisoning,
        "strip": strip,
        "activation-clustering": activation_clustering,
        "spectral-signatures": spectral_signatures,
        "neural-cleanse": neural_cleanse,
    }
    notes = {
        "poisoning": ["draws its own rows and appends them to the clean set instead of replacing rows"],
        "activation-clustering": ["shuffles the rows before it flags them by position"],
        "neural-cleanse": ["keeps the last mark of the optimisation, not the best"],
    }
    main("trojanzoo", version("trojanzoo"), works, notes)
