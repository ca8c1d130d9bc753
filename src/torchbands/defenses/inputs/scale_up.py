"""SCALE-UP: a triggered input keeps its prediction when all its values are multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchbands.core.data import Batch, Column, Data, take
from torchbands.core.defense import FittedDetector, InputDetector, per_row, require
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.model import Model


@method("scale-up", paper="Guo et al., ICLR 2023, arXiv:2302.03251", needs=("logits", "clean:256"))
class ScaleUp(InputDetector):
    """Fraction of amplified copies of the input (times 3, 5, 7, 9, 11, clipped) with the same prediction.

    Data-free, the default: the share as it is. Data-limited (`calibrated=True`): the share standardised by the mean and
    deviation over clean samples of the predicted class; useless where clean samples of the target class already agree
    with all their copies. Flagged above 0.5 either way.

    Needs: logits (a black box will do), and when calibrated clean samples (labels are not read). Defined only where
    raw values have a range to be clipped to.

    Deviations from the paper: a class with fewer than 5 clean samples uses the statistics of all; a deviation counts as
    at least half of one copy's share, so that a class in which all clean samples agree does not divide by zero.

    Cost: 6 forward passes per input.
    """

    factors: tuple[float, ...] = (3.0, 5.0, 7.0, 9.0, 11.0)
    """Factors by which the input values are multiplied."""
    calibrated: bool = False
    """Standardise scores by the clean samples of the predicted class."""
    threshold: float = 0.5
    """Inputs with a higher score are flagged."""

    def __post_init__(self) -> None:
        if not self.factors:
            raise InputError("scale-up needs at least one factor, got none")

    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        if model.modality.bounds is None:
            raise NotApplicable(
                f"{model.modality.name} samples have no range that amplified values could be clipped to"
            )
        if not isinstance(model.modality.random(1, torch.Generator().manual_seed(0)), Tensor):
            raise NotApplicable(f"{model.modality.name} samples are no numbers that could be multiplied")
        fitted = FittedScaleUp(model, self.factors, *model.modality.bounds, threshold=self.threshold)
        if self.calibrated:
            require(self, model, clean)
            share, predicted = fitted.consistency(clean.x)
            fitted.mean, fitted.deviation = _statistics(share, predicted, model.classes, 0.5 / len(self.factors))
        return fitted

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        if model.modality.bounds is None:
            raise NotApplicable(f"{model.modality.name} samples have no range")
        mean, deviation = tensors.get("mean"), tensors.get("deviation")
        return FittedScaleUp(model, self.factors, *model.modality.bounds, mean, deviation, float(facts["threshold"]))


@dataclass
class FittedScaleUp(FittedDetector):
    """SCALE-UP for one model; (K,) mean and deviation where it is calibrated."""

    model: Model
    factors: tuple[float, ...]
    low: float
    high: float
    mean: Tensor | None = None
    deviation: Tensor | None = None
    threshold: float | None = None

    def score(self, x: Batch | Column) -> Tensor:
        """(N,) share of agreeing copies, standardised where calibrated."""
        share, predicted = self.consistency(x)
        if self.mean is not None and self.deviation is not None:
            share = (share - self.mean[predicted]) / self.deviation[predicted]
        return per_row(share, len(x), "scale-up")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        held = {"mean": self.mean, "deviation": self.deviation}
        return {k: t for k, t in held.items() if t is not None}, {"threshold": self.threshold}

    def consistency(self, x: Batch | Column) -> tuple[Tensor, Tensor]:
        """(N,) share of agreeing copies in [0, 1] and (N,) predicted classes."""
        shares, classes = [torch.zeros(0)], [torch.zeros(0, dtype=torch.int64)]
        for rows in torch.arange(len(x)).split(self.model.chunk):
            batch = take(x, rows)
            predicted = self.model.logits(batch).argmax(1)
            copies = [(batch * k).clamp(self.low, self.high) for k in self.factors]
            same = torch.stack([self.model.logits(copy).argmax(1) == predicted for copy in copies])
            shares.append(same.float().mean(0))
            classes.append(predicted)
        return torch.cat(shares), torch.cat(classes)


def _statistics(share: Tensor, predicted: Tensor, classes: int, floor: float) -> tuple[Tensor, Tensor]:
    """(K,) mean and (K,) deviation of the clean shares by predicted class."""
    mean = torch.full((classes,), float(share.mean()))
    deviation = torch.full((classes,), float(share.std()) if len(share) > 1 else 0.0)
    for k in range(classes):
        mine = share[predicted == k]
        if len(mine) >= 5:
            mean[k], deviation[k] = mine.mean(), mine.std()
    return mean, deviation.clamp_min(floor)
