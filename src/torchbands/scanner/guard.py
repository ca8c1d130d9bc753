"""`torchbands.Guard`: a predictor that computes a calibrated p-value for every input and abstains if it is small."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from torchbands.core.data import Batch, Column
from torchbands.core.defense import FittedDetector, InputDetector
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Network
from torchbands.core.registry import build
from torchbands.core.seeding import generator

from .in_memory import data_of, samples_of
from .predictor import predictor

if TYPE_CHECKING:
    from .guard_files import Graph
    from .opening import Limits

#: Share of the clean rows that calibrates and fits nothing.
CALIBRATE = 0.4


@dataclass(frozen=True)
class Judged:
    """One batch, judged.

    Attributes:
        prediction: (N,) int64 classes, -1 where the guard abstains.
        p: (N,) float64, the share of clean inputs that look at least as suspicious (this one counted among them).
        flagged: (N,) bool, p at or below the guard's alpha.
        score: (N,) float32 of the detector, higher more suspicious.
    """

    prediction: Tensor
    p: Tensor
    flagged: Tensor
    score: Tensor

    def __len__(self) -> int:
        return len(self.p)


class Guard:
    """Wraps any predictor: `guard = Guard(model).fit(clean)`, then `guard(x)`.

    The p-value is conformal: an input's score is ranked among those of clean rows that fitted nothing (split conformal
    prediction). Fresh clean inputs of the same distribution are flagged in at most `alpha` of the cases, whatever the
    detector; inputs of another distribution may be flagged without any trigger.

    Args:
        model: an nn.Module that takes raw samples (normalisation inside), a `Model`, an object with `predict_proba`, or
            a function from a batch to (N, K) probabilities; the last two are black boxes.
        detector: a registered input detector, by name or itself. By default badexpert, and strip for a black box.
        alpha: share of clean inputs that may be flagged.
        modality, classes: what the samples are; told by the clean rows where they are square images or flat numbers.
    """

    def __init__(
        self,
        model: nn.Module | Model | Callable[[Any], Any] | Any,
        *,
        detector: str | InputDetector | None = None,
        alpha: float = 0.05,
        seed: int = 0,
        modality: Modality | None = None,
        classes: int | None = None,
    ) -> None:
        if not 0 < alpha < 1:
            raise InputError(f"alpha is a share between 0 and 1, got {alpha}")
        self._given, self._modality, self._classes = model, modality, classes
        self._asked = detector
        self.alpha, self.seed = alpha, seed
        self._model: Model | None = None
        self._detector: InputDetector | None = None
        self._fitted: FittedDetector | None = None
        self.calibration = torch.zeros(0)
        self.overhead = 0.0

    def fit(self, clean: Any) -> Self:
        """Fit the detector on 60 % of the clean rows and calibrate on the others. Returns the guard.

        Args:
            clean: labelled rows in whatever `rows_of` takes: `Data`, (x, y), a DataLoader, a pandas frame ...

        Raises InputError for too few rows: alpha 0.05 needs 19 that calibrate, 48 in all. NotApplicable where the
        detector does not fit the model.
        """
        rows = data_of(clean, self._modality or getattr(self._given, "modality", None))
        fewest = math.ceil(math.ceil(1 / self.alpha - 1) / CALIBRATE)
        if len(rows) < fewest:
            raise InputError(f"alpha {self.alpha:g} needs at least {fewest} clean rows, got {len(rows)}")
        model = predictor(self._given, rows, self._modality, self._classes)
        order = torch.randperm(len(rows), generator=generator("guard", self.seed))
        held = round(CALIBRATE * len(rows))
        self._take(model, self._choose(model))
        assert self._detector is not None
        self._fitted = self._detector.fit(model, rows[order[held:]], seed=self.seed)
        before = model.passes.forward
        self.calibration = self._fitted.score(rows[order[:held]].x).sort().values
        self.overhead = (model.passes.forward - before) / held
        return self

    def _choose(self, model: Model) -> InputDetector:
        default = "badexpert" if "gradients" in model.capabilities else "strip"
        made = build(default if self._asked is None else self._asked, "input-detector")
        assert isinstance(made, InputDetector)
        return made

    def _take(self, model: Model, detector: InputDetector) -> None:
        self._model, self._detector = model, detector

    @property
    def model(self) -> Model:
        """The predictor, as a `Model`. InputError before `fit`."""
        if self._model is None:
            raise InputError("this guard is not fitted", hint="guard.fit(clean)")
        return self._model

    @property
    def detector(self) -> InputDetector:
        """What gives the scores."""
        if self._detector is None:
            raise InputError("this guard is not fitted", hint="guard.fit(clean)")
        return self._detector

    @property
    def fitted(self) -> FittedDetector:
        """The detector with what it learned."""
        if self._fitted is None:
            raise InputError("this guard is not fitted", hint="guard.fit(clean)")
        return self._fitted

    def score_samples(self, x: Batch | Column) -> Tensor:
        """(N,) float32 suspicion, higher is more suspicious. x: as of a call."""
        return self.fitted.score(samples_of(x, self.model.modality))

    def p_values(self, score: Tensor) -> Tensor:
        """(N,) conformal p-values of scores: (1 + number of calibration scores at least as high) / (n + 1)."""
        above = len(self.calibration) - torch.searchsorted(self.calibration, score.contiguous())
        return (above + 1).double() / (len(self.calibration) + 1)

    def __call__(self, x: Batch | Column) -> Judged:
        """Judge a batch or a whole column of raw samples; arrays, frames, images and loaders of such are read too.

        Costs one forward pass per input for the prediction and `overhead` more for the score.
        """
        fitted = self.fitted
        if not hasattr(x, "__len__") or len(x) > 0:
            x = samples_of(x, self.model.modality)
        if len(x) == 0:
            return self.nothing()
        score = fitted.score(x)
        p = self.p_values(score)
        flagged = p <= self.alpha
        prediction = self.model.logits(x).argmax(1)
        return Judged(prediction.masked_fill(flagged, -1), p, flagged, score)

    @staticmethod
    def nothing() -> Judged:
        """No input, judged."""
        none = torch.zeros(0)
        return Judged(none.long(), none.double(), none.bool(), none)

    def stream(self, batches: Iterable[Batch]) -> Iterator[Judged]:
        """Judge batches as they come; nothing is kept of them."""
        for batch in batches:
            yield self(batch)

    def save(self, folder: str | Path, *, network: Network | None = None, graph: Graph | None = None) -> Path:
        """Write a guard directory, whole or not at all: card.json, model.safetensors, detector.safetensors.

        Args:
            network: the registered architecture of the model, so that `load` can build it. Without it, and for a black
                box, `load` must be given the model.
            graph: the ONNX file that the model was opened from, which is kept too, so that `load` can open it.
        """
        from .guard_files import save

        return save(self, folder, network, graph)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: nn.Module | Model | Any | None = None,
        arch: str | None = None,
        limits: Limits | None = None,
    ) -> Guard:
        """A guard from its directory; nothing in it is executed, and every file is checked first.

        Args:
            model: the predictor, where the directory does not say how to build it. Its weights must be those saved.
            arch: what builds it instead: your own "package.module:factory" or "./file.py:factory", or a network's name.
            limits: time and memory of opening an ONNX model that is kept in the directory.

        Raises InputError for what is no guard, was altered, or belongs to another model.
        """
        from .guard_files import load

        return load(cls.restored, folder, model, arch, limits)

    @classmethod
    def restored(
        cls, model: Model, detector: InputDetector, fitted: FittedDetector, calibration: Tensor, **facts: Any
    ) -> Guard:
        """A fitted guard from its parts. facts: alpha, seed, overhead."""
        made = cls(model, detector=detector, alpha=float(facts["alpha"]), seed=int(facts["seed"]))
        made._take(model, detector)
        made._fitted, made.calibration, made.overhead = fitted, calibration, float(facts["overhead"])
        return made


def discoveries(p: Tensor, level: float) -> Tensor:
    """(N,) bool: inputs significant after control of the false discovery rate (Benjamini and Hochberg, 1995)."""
    if len(p) == 0:
        return torch.zeros(0, dtype=torch.bool)
    from scipy.stats import false_discovery_control  # imported here: scipy.stats alone takes a second or two

    adjusted = torch.from_numpy(false_discovery_control(p.double().numpy()))
    return adjusted <= level * (1 + 1e-9)  # p-values are exact fractions: what equals the level is within it
