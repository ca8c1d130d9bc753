"""STRIP: a triggered input keeps its prediction whatever is superimposed on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor

from torchbands.core.budget import in_parts
from torchbands.core.data import Batch, Column, Data, concat, take
from torchbands.core.defense import FittedDetector, InputDetector, per_row, require
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng, generator, seed_of


@method("strip", paper="Gao et al., ACSAC 2019, arXiv:1902.06531", needs=("logits", "clean:320"), version=2)
class STRIP(InputDetector):
    """Minus the mean prediction entropy, in bits, when N clean samples are superimposed on the input.

    Every input gets the same N overlays, so its score does not depend on the batch it comes in. The threshold leaves
    `frr` of clean inputs above it, by a normal distribution fitted to the scores of clean samples that are no overlays.

    Needs: logits (a black box will do), clean samples (labels are not read).

    Deviations from the paper: 64 overlays (paper: 100); up to 256 clean samples for the threshold (paper: 2,000).
    Overlays are added and clipped to the valid range, as in the authors' code; "blend" takes half of each instead, as
    many toolkits do. Two texts stand one behind the other; where a network does not read both, each overlay shows half
    of either, and which half is drawn.

    Cost: `overlays` forward passes per input.
    """

    overlays: int = 64
    """Clean samples superimposed on every input."""
    superposition: Literal["add", "blend"] = "add"
    """Add the overlay, or average it with the input."""
    frr: float = 0.01
    """False rejection rate: the fraction of clean inputs that may be rejected."""
    calibration: Literal["normal", "quantile"] = "normal"
    """Threshold from a normal fit to the clean scores, or from their empirical quantile."""
    calibration_rows: int = 256
    """Maximum number of clean samples used for the threshold."""

    def __post_init__(self) -> None:
        if min(self.overlays, self.calibration_rows) < 1 or not 0 < self.frr < 1:
            raise InputError("strip: overlays and calibration_rows are at least 1 and frr is between 0 and 1")

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        require(self, model, clean)
        if len(clean) < 2:
            raise InputError(f"strip needs clean samples to lay over inputs and others to compare, got {len(clean)}")
        order = torch.randperm(len(clean), generator=generator("strip", seed))
        count = min(self.overlays, len(clean) // 2)
        alpha, beta = (1.0, 1.0) if self.superposition == "add" else (0.5, 0.5)
        fitted = FittedSTRIP(model, take(clean.x, order[:count]), alpha, beta, seed_of("strip blend", seed))
        scores = fitted.score(take(clean.x, order[count : count + self.calibration_rows])).double()
        if self.calibration == "normal":
            spread = float(scores.std()) if len(scores) > 1 else 0.0
            fitted.threshold = float(scores.mean()) + NormalDist().inv_cdf(1 - self.frr) * spread
        else:
            fitted.threshold = float(scores.quantile(1 - self.frr))
        return fitted

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        kind, rows = facts["overlays"]
        overlays: Batch = tensors["overlays"] if kind == "tensor" else list(rows)
        alpha, beta = float(facts["alpha"]), float(facts["beta"])
        return FittedSTRIP(model, overlays, alpha, beta, int(facts["seed"]), float(facts["threshold"]))


@dataclass
class FittedSTRIP(FittedDetector):
    """STRIP with its overlays drawn."""

    model: Model
    overlays: Batch
    alpha: float
    beta: float
    seed: int
    threshold: float | None = None

    def score(self, x: Batch | Column) -> Tensor:
        """(N,) minus the mean entropy in bits: 0 is the most suspicious there is."""
        if len(x) == 0:
            return torch.zeros(0)
        together = max(1, self.model.chunk // len(self.overlays))
        bits = torch.cat([self._entropies(take(x, rows)) for rows in torch.arange(len(x)).split(together)])
        return per_row(-bits.cpu(), len(x), "strip")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        facts = {"alpha": self.alpha, "beta": self.beta, "seed": self.seed, "threshold": self.threshold}
        if isinstance(self.overlays, Tensor):
            return {"overlays": self.overlays}, {**facts, "overlays": ["tensor", []]}
        return {}, {**facts, "overlays": ["text", list(self.overlays)]}

    @torch.no_grad()
    def _entropies(self, batch: Batch) -> Tensor:
        """(n,) mean over overlays of the entropy over classes, on the model's device."""
        model, count, n = self.model, len(batch), len(self.overlays)
        model.modality.check(batch)
        if isinstance(batch, Tensor):
            batch, self.overlays = batch.to(model.device), self.overlays.to(model.device)
        under = take(batch, torch.arange(count).repeat_interleave(n))
        over = concat([self.overlays] * count)
        draws = RowRng(self.seed, torch.arange(n).repeat(count))  # a draw belongs to the overlay, not to the input
        mixed = model.modality.blend(under, over, self.alpha, self.beta, draws)
        if "gradients" in model.capabilities:
            e = model.encode(mixed)
            logits = torch.cat(in_parts(model, len(mixed), lambda part: model.logits_at(e.at(part.to(model.device)))))
        else:
            logits = model.logits(mixed)
        logs = logits.log_softmax(1)
        bits = -(logs.exp() * logs).sum(1) / torch.log(torch.tensor(2.0))
        return bits.view(count, n).mean(1)
