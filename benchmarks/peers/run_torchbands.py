"""The works done by torchbands, through its public methods with the stated settings.

Inference runs in bfloat16 where the device has it, as it does in the benchmark engine. The variant `suite` of the data
filters scores the same rows with spectral signatures, activation clustering and SCAn after each other: the
forward pass is shared. Neural Cleanse is measured with the peer's fixed amount of work and with its defaults.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.peers.contract import Clock, Measured, Work, auroc, main, row_quality, trigger_quality
from benchmarks.peers.exchange import Exchange
from torchbands import __version__
from torchbands.core.data import Data, take
from torchbands.core.defense import DataFilter, InputDetector
from torchbands.core.model import Model
from torchbands.core.registry import build
from torchbands.defenses.models.neural_cleanse import NeuralCleanse
from torchbands.modalities.image import Image
from torchbands.triggers.blend import Blend
from torchbands.triggers.image import Patch

Outcome = tuple[Measured, dict[str, Measured]]


def victim(exchange: Exchange) -> Model:
    described = exchange.description["victim"]
    modality = Image(channels=described["channels"], size=described["size"])
    return Model(exchange.network, modality, described["classes"], precision="fast")


def held_out(exchange: Exchange, count: int) -> Data:
    """Clean test rows that are no triggered input of the benchmark: the last ones."""
    labels = exchange.data["test_labels"]
    rows = torch.arange(len(labels) - count, len(labels))
    return Data(exchange.floats("test_images", rows), labels[rows])


def poisoning(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    attack = exchange.attack
    data = Data(exchange.floats("clean_images"), exchange.data["clean_labels"])
    rows = exchange.data["poisoned"].nonzero().flatten()
    with Clock() as clock:
        poisoned = data.stamp(rows, Patch(size=attack["patch"][0], margin=0), label=attack["target"], seed=0)
        stamped = take(poisoned.x, rows)
    wanted = exchange.floats("train_images", rows)
    equal = torch.equal(stamped, wanted) and torch.equal(poisoned.y, exchange.data["train_labels"])
    measured = Measured.of(clock, {"rows": len(rows), "equal": equal})
    if not variants:
        return measured, {}
    blend = Blend(modality=Image(channels=1, size=28), alpha=work["blend_alpha"])
    with Clock() as blended:
        take(data.stamp(rows, blend, label=attack["target"], seed=0).x, rows)
    return measured, {"blended": Measured.of(blended, {"rows": len(rows)})}


def strip(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    model = victim(exchange)
    rows = exchange.strip_rows()
    clean = exchange.floats("test_images", exchange.data["triggered_rows"][rows])
    triggered = exchange.floats("triggered_images", rows)
    outcome = {}
    for superposition in ("blend", "add") if variants else ("blend",):
        detector = build({"name": "strip", "superposition": superposition, "overlays": work["overlays"]})
        assert isinstance(detector, InputDetector)
        overlays = held_out(exchange, work["overlays"] + 64)
        with Clock() as clock:
            fitted = detector.fit(model, overlays)
            scores = fitted.score(torch.cat([clean, triggered]))
        truth = np.arange(len(scores)) >= len(clean)
        assert fitted.threshold is not None
        caught = float((scores[len(clean) :] > fitted.threshold).float().mean())
        quality = {"auroc": auroc(truth, scores.numpy()), "true_positive_rate": caught, "inputs": len(scores)}
        outcome[superposition] = Measured.of(clock, quality)
    return outcome.pop("blend"), outcome


def filtered(exchange: Exchange, work: dict[str, Any], variants: bool, *, name: str) -> Outcome:
    rows, target = exchange.data["filter_rows"], exchange.attack["target"]
    truth = exchange.data["poisoned"][rows].numpy()
    labels = exchange.data["train_labels"][rows]

    def run(specs: list[dict[str, Any]]) -> Measured:
        data, model = Data(exchange.floats("train_images", rows), labels), victim(exchange)
        clean = held_out(exchange, 1000)
        with Clock() as clock:
            for spec in specs:
                method = build(spec)
                assert isinstance(method, DataFilter)
                found = method.score(data, model, clean=clean if method.clean_needed() else None)
        flagged = None if found.flagged is None else found.flagged.numpy()
        return Measured.of(clock, row_quality(truth, labels, target, flagged=flagged, scores=found.scores.numpy()))

    if name == "activation-clustering":
        first: list[dict[str, Any]] = [{"name": name}]
        return run(first), {}
    suite = [{"name": n} for n in ("activation-clustering", "statistical-contamination")]
    oriented = {"name": name, "rule": "oriented"}
    main_run = run([{"name": name}])
    return main_run, {"oriented": run([oriented]), "suite": run([*suite, oriented])} if variants else {}


def neural_cleanse(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    labels = exchange.data["test_labels"]
    clean = Data(exchange.floats("test_images", slice(0, work["images"])), labels[: work["images"]])
    steps = work["images"] // work["batch"]
    fixed = NeuralCleanse(
        rows=work["images"],
        batch=work["batch"],
        steps=steps,
        epochs=work["epochs"],
        lr=work["lr"],
        cost=work["cost"],
        stop_patience=10**9,
        precision="fast",
    )
    runs = {"fixed": fixed, "class by class": fixed.but(classes_at_once=1), "defaults": NeuralCleanse()}
    runs["defaults, bfloat16"] = NeuralCleanse(precision="fast")
    outcome = {}
    for name, method in runs.items() if variants else [("fixed", fixed)]:
        model = victim(exchange)
        with Clock() as clock:
            finding = method.inspect(model, clean)
        sizes = np.array(finding.evidence["sizes"])
        success = np.array(finding.evidence["reached"], dtype=float)
        quality = trigger_quality(sizes, exchange.attack["target"], success)
        outcome[name] = Measured.of(clock, quality)
    return outcome.pop("fixed"), outcome


if __name__ == "__main__":
    works: dict[str, Work] = {
        "poisoning": poisoning,
        "strip": strip,
        "spectral-signatures": partial(filtered, name="spectral-signatures"),
        "activation-clustering": partial(filtered, name="activation-clustering"),
        "neural-cleanse": neural_cleanse,
    }
    main("torchbands", __version__, works, {})
