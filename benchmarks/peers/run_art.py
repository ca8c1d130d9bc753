"""The works done by adversarial-robustness-toolbox (ART), in its own environment.

What had to be supplied to run it at all, or to see what it computes:

- STRIP takes the entropy of what the classifier returns, so the classifier must return probabilities: the victim is
  wrapped in a softmax. Its scores never leave the method (`predict` only abstains), so `entropy`, as the
  module imports it, is replaced by a recorder that calls it. The recorder also keeps the predictions,
  for the AUROC that the same predictions give when the entropy is taken over classes instead of over overlays.
- Spectral signatures and activation clustering read the last child module of the model, which for a PyTorch
  model is the linear head: logits, not the features of the papers. That is what is timed. The variant `penultimate`
  hands over the same network with its children registered in another order, so that the last one ends at the features.
- Spectral signatures need the poison rate: the true one is given. The scoring function is wrapped to keep its scores.
- Poisoning goes through `PoisoningAttackBackdoor` with a NumPy function that writes the patch, since no function of
  ART writes a solid patch on a batch; the variant `blended` uses ART's own `insert_image`.
- Neural Cleanse exists for Keras classifiers only.
"""

from __future__ import annotations

import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.attacks.poisoning import PoisoningAttackBackdoor
from art.attacks.poisoning.perturbations import insert_image
from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense
from art.defences.transformer.poisoning import STRIP, NeuralCleanse
from art.estimators.classification import PyTorchClassifier
from art.estimators.poison_mitigation.strip import strip as strip_module
from PIL import Image
from torch import Tensor, nn

from benchmarks.peers.contract import Clock, Measured, NotMeasurable, Work, auroc, main, row_quality
from benchmarks.peers.exchange import Exchange, parts

Array = np.ndarray[Any, Any]
Outcome = tuple[Measured, dict[str, Measured]]


class FeaturesLast(nn.Module):
    """The victim with its feature extractor as the last child module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        body, self.head = parts(network)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def classifier(exchange: Exchange, network: nn.Module) -> Any:
    victim = exchange.description["victim"]
    shape = (victim["channels"], victim["size"], victim["size"])
    return PyTorchClassifier(
        network.eval(), nn.CrossEntropyLoss(), shape, victim["classes"], clip_values=(0.0, 1.0), device_type="cpu"
    )


def poisoning(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    attack, (height, width) = exchange.attack, exchange.attack["patch"]
    box = (..., slice(attack["top"], attack["top"] + height), slice(attack["left"], attack["left"] + width))
    x, y = exchange.floats("clean_images").numpy(), exchange.data["clean_labels"].numpy()
    rows, target = np.flatnonzero(exchange.data["poisoned"].numpy()), np.array([attack["target"]])

    def patch(batch: Array) -> Array:
        batch[box] = attack["value"] / 255
        return batch

    with Clock() as clock:
        stamped, labels = PoisoningAttackBackdoor(patch).poison(x[rows], target, broadcast=True)
        x[rows], y[rows] = stamped, labels[:, 0]
    equal = np.array_equal(x, exchange.floats("train_images").numpy())
    quality = {"rows": len(rows), "equal": equal and np.array_equal(y, exchange.data["train_labels"].numpy())}

    if not variants:
        return Measured.of(clock, quality), {}
    with tempfile.TemporaryDirectory() as folder:
        pattern = np.random.default_rng(0).integers(0, 256, x.shape[2:], dtype=np.uint8)
        file = Path(folder) / "pattern.png"
        Image.fromarray(pattern).save(file)
        x = exchange.floats("clean_images").numpy()
        blend = partial(insert_image, backdoor_path=file, channels_first=True, random=False, blend=work["blend_alpha"])
        with Clock() as blended:
            x[rows], _ = PoisoningAttackBackdoor(blend).poison(x[rows], target, broadcast=True)
    alpha = work["blend_alpha"]
    wanted = (1 - alpha) * exchange.floats("clean_images").numpy()[rows] + alpha * pattern / 255
    error = {"rows": len(rows), "largest_error": float(np.abs(x[rows] - wanted).max())}
    return Measured.of(clock, quality), {"blended": Measured.of(blended, error)}


def strip(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    rows = exchange.strip_rows()
    clean = exchange.floats("test_images", exchange.data["triggered_rows"][rows]).numpy()
    triggered = exchange.floats("triggered_images", rows).numpy()
    entropies, predictions, entropy = [], [], strip_module.entropy

    def recorder(values: Array, **kwargs: Any) -> Array:
        found: Array = entropy(values, **kwargs)
        entropies.append(float(np.sum(found)) / len(values))
        predictions.append(values)
        return found

    strip_module.entropy = recorder
    network = nn.Sequential(exchange.network, nn.Softmax(1))
    with Clock() as clock:
        defence = STRIP(classifier(exchange, network))(num_samples=work["overlays"])
        defence.mitigate(clean)
        answers = defence.predict(triggered)
    truth = np.arange(len(entropies)) >= len(clean)
    over_classes = [float(entropy(values, base=2, axis=1).mean()) for values in predictions]
    quality = {
        "auroc": auroc(truth, -np.array(entropies)),
        "auroc_over_classes": auroc(truth, -np.array(over_classes)),
        "true_positive_rate": float((answers == 0).all(axis=1).mean()),
        "inputs": len(entropies),
    }
    return Measured.of(clock, quality), {}


def filtered(exchange: Exchange, work: dict[str, Any], variants: bool, *, name: str) -> Outcome:
    rows, attack = exchange.data["filter_rows"], exchange.attack
    x, y = exchange.floats("train_images", rows).numpy(), exchange.data["train_labels"][rows].numpy()
    truth = exchange.data["poisoned"][rows].numpy()
    rate = float(truth.mean())
    scoring, kept = SpectralSignatureDefense.spectral_signature_scores, []

    def recorder(features: Array) -> Array:
        found: Array = scoring(features)
        kept.append(found)
        return found

    SpectralSignatureDefense.spectral_signature_scores = staticmethod(recorder)
    outcome = {}
    networks = {"shipped": exchange.network, "penultimate": FeaturesLast(exchange.network)}
    for variant, network in networks.items() if variants else [("shipped", exchange.network)]:
        kept.clear()
        with Clock() as clock:
            model = classifier(exchange, network)
            if name == "spectral-signatures":
                defence = SpectralSignatureDefense(model, x, y, rate, work["batch"])
                _, is_clean = defence.detect_poison()
            else:
                defence = ActivationDefence(model, x, y)
                _, is_clean = defence.detect_poison(
                    nb_clusters=work["clusters"], nb_dims=work["components"], reduce="PCA"
                )
        scores = None
        if kept:
            scores = np.empty(len(y))
            for c, found in enumerate(kept):
                scores[y == c] = found[:, 0]
        quality = row_quality(truth, y, attack["target"], flagged=np.array(is_clean) == 0, scores=scores)
        outcome[variant] = Measured.of(clock, quality)
    return outcome.pop("shipped"), outcome


def neural_cleanse(exchange: Exchange, work: dict[str, Any], variants: bool) -> Outcome:
    try:
        NeuralCleanse(classifier(exchange, exchange.network))(steps=1)
    except NotImplementedError as error:
        raise NotMeasurable(f"for a PyTorch model it raises NotImplementedError: {error}") from error
    raise RuntimeError("Neural Cleanse accepts a PyTorch model now: measure it")


if __name__ == "__main__":
    works: dict[str, Work] = {
        "poisoning": poisoning,
        "strip": strip,
        "spectral-signatures": partial(filtered, name="spectral-signatures"),
        "activation-clustering": partial(filtered, name="activation-clustering"),
        "neural-cleanse": neural_cleanse,
    }
    notes = {
        "strip": ["entropy is taken over the overlays instead of over the classes"],
        "spectral-signatures": [
            "reads logits; scores project features that are not centred; given the true poison rate"
        ],
        "activation-clustering": ["reads logits; always flags the smaller cluster of every class"],
    }
    torch.manual_seed(0)
    main("adversarial-robustness-toolbox", version("adversarial-robustness-toolbox"), works, notes)
