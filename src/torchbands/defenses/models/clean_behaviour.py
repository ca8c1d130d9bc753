"""Behaviour of a model on clean rows: accuracy, confidence, calibration, size of its logits."""

from __future__ import annotations

from typing import ClassVar

import torch

from torchbands.core.data import Data
from torchbands.core.defense import Finding, ModelDetector, require
from torchbands.core.method import method
from torchbands.core.model import Model


@method(
    "clean-behaviour",
    paper="after Guo et al., ICML 2017 (calibration), arXiv:1706.04599",
    needs=("logits", "clean:1000"),
)
class CleanBehaviour(ModelDetector):
    """Statistics that tell training recipes apart: are suspect and reference models comparable at all?

    statistics: logit of the accuracy, mean confidence, mean entropy, confidence minus accuracy, and the log of the
    logits' mean standard deviation within a row. The score is the error rate: it says nothing about backdoors, and
    nothing is flagged. Works on black boxes (log-probabilities take the place of logits).

    Deviations from the paper: it is no method of the paper's; the calibration gap is taken over all rows at once.
    """

    contract_unshown: ClassVar[str] = "it tells recipes apart, and is not for finding backdoors"

    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        require(self, model, clean)
        logits = model.logits(clean.x)
        p = logits.softmax(1)
        right = float((logits.argmax(1) == clean.y).float().mean())
        bounded = min(max(right, 0.5 / len(clean)), 1 - 0.5 / len(clean))
        confidence = float(p.amax(1).mean())
        entropy = float(-(p * p.clamp_min(1e-12).log()).sum(1).mean())
        spread = float(logits.std(1).mean().clamp_min(1e-6).log())
        numbers = [float(torch.tensor(bounded).logit()), confidence, entropy, confidence - right, spread]
        return Finding(
            score=1 - right,
            statistics=torch.tensor(numbers),
            evidence={"accuracy": round(right, 4), "confidence": round(confidence, 4), "entropy": round(entropy, 4)},
        )
