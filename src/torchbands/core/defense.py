"""The defense roles. Higher scores always mean more suspicious; thresholds are calibrated elsewhere.

A defense receives exactly what its `needs` name: blind data, a clean split, a model. The poisoned test set, the target
and the true poison rate are not there to be read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .data import Batch, Column, Data
from .errors import InputError, NotApplicable
from .method import Method
from .model import Model
from .recipe import Progress, Recipe
from .trigger import Trigger


@dataclass(frozen=True)
class Finding:
    """Result of a model detector.

    Attributes:
        score: higher is more suspicious; comparable between models of one recipe only.
        flagged: the published rule's own verdict; None where the paper gives none.
        target: the suspected target class. source: the suspected source class, where the method tells.
        trigger: the recovered trigger, where the method recovers one.
        per_class: (K,) score of every class, higher more suspicious.
        per_pair: (K, K) score of every (source, target) pair, higher more suspicious; NaN where a pair was not judged.
        per_trigger: (T, K) by how much each of T small triggers speaks for each class, higher more suspicious, and
            `insertion`, which makes one trigger of some of them.
        statistics: (D,) numbers of the model that mean something only beside those of reference models.
        evidence: JSON-ready facts behind the score.
    """

    score: float
    flagged: bool | None = None
    target: int | None = None
    source: int | None = None
    trigger: Trigger | None = None
    per_class: Tensor | None = None
    per_pair: Tensor | None = None
    per_trigger: Tensor | None = None
    insertion: Callable[[Sequence[int]], Trigger] | None = None
    statistics: Tensor | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Work(NamedTuple):
    """Upper bounds on the rows of forward passes, and of forward and backward passes."""

    forward: int = 0
    back: int = 0


@dataclass(frozen=True)
class Suspicion:
    """(N,) float32 scores of training rows, and the (N,) bool rows that the published rule would remove."""

    scores: Tensor
    flagged: Tensor | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


class FittedDetector(ABC):
    """An input detector that has seen its model and clean data. `threshold` is the published rule's, if it has one."""

    threshold: float | None = None

    @property
    def about(self) -> str:
        """Details of this instance that the method's name does not tell; shown beside the name in tables."""
        return ""

    @abstractmethod
    def score(self, x: Batch | Column) -> Tensor:
        """(N,) float32 suspicion of raw samples."""

    def score_samples(self, x: Batch | Column) -> Tensor:
        """Alias of `scores` with scikit-learn's name."""
        return self.score(x)

    def flag(self, x: Batch | Column) -> Tensor:
        """(N,) bool by the published rule."""
        if self.threshold is None:
            raise NotApplicable("the paper gives no threshold")
        return self.score(x) > self.threshold

    def correct(self, x: Batch) -> Batch:
        """Raw samples with the suspicious parts removed, for detectors that can correct inputs."""
        raise NotApplicable(f"{type(self).__name__} rejects inputs and mends none")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything fitted besides the model, as tensors and JSON-ready facts, for `InputDetector.restore`."""
        raise NotApplicable(f"{type(self).__name__} cannot be saved")


@dataclass(frozen=True, kw_only=True)
class InputDetector(Method):
    """Judges single inputs at test time."""

    role: ClassVar[str] = "input-detector"

    @abstractmethod
    def fit(self, model: Model, clean: Data, *, seed: int = 0) -> FittedDetector:
        """Fit to a model and clean rows."""

    def restore(self, model: Model, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedDetector:
        """The fitted detector of a `FittedDetector.state`, for the same model."""
        raise NotApplicable(f"{self.name} cannot be loaded again")


@dataclass(frozen=True, kw_only=True)
class ModelDetector(Method):
    """Judges a whole model."""

    role: ClassVar[str] = "model-detector"

    @abstractmethod
    def inspect(self, model: Model, clean: Data, *, seed: int = 0) -> Finding:
        """Look for a backdoor, with clean rows (as many as `needs` asks for, maybe none)."""

    def work(self, model: Model, rows: int) -> Work:
        """Passes that `inspect` will make, given the number of clean rows; used to estimate its time in advance."""
        reads = any(need.split(":")[0] in ("logits", "features", "clean") for need in self.needs)
        return Work(min(rows, self.clean_needed()) if reads else 0)


@dataclass(frozen=True, kw_only=True)
class DataFilter(Method):
    """Ranks training rows by suspicion, given the model trained on them."""

    role: ClassVar[str] = "data-filter"

    @abstractmethod
    def score(self, data: Data, model: Model, *, clean: Data | None = None, seed: int = 0) -> Suspicion:
        """Score every row of blind training data. `clean` is given where `needs` names it."""


@dataclass(frozen=True, kw_only=True)
class Training(Method):
    """Trains on possibly poisoned data so that the backdoor is not learned."""

    role: ClassVar[str] = "training"

    @abstractmethod
    def train(self, recipe: Recipe, data: Data, *, seed: int = 0, progress: Progress | None = None) -> Model:
        """Train a model on blind data with the victim's recipe, which holds network and learner but no rows."""


@dataclass(frozen=True, kw_only=True)
class Repair(Method):
    """Removes a backdoor from a model."""

    role: ClassVar[str] = "repair"

    @abstractmethod
    def repair(self, model: Model, clean: Data, *, seed: int = 0) -> Model:
        """A repaired copy; the model given is not changed."""


def require(method: Method, model: Model, clean: Data | None = None) -> None:
    """Raise NotApplicable when a model cannot serve a method's needs, InputError when clean data falls short or is not
    what the model takes."""
    for need in method.needs:
        kind = need.split(":")[0]
        if kind in ("logits", "features", "gradients", "clean") and "generates" in model.capabilities:
            what = "rows with labels of classes" if kind == "clean" else f"{kind} of classes"
            raise NotApplicable(f"{method.name} needs {what}, and a generator answers with text")
        if kind in ("gradients", "features", "weights", "units") and kind not in model.capabilities:
            raise NotApplicable(f"{method.name} needs {kind}, which this model does not give (a black box)")
        if kind == "clean" and (clean is None or len(clean) == 0):
            raise InputError(f"{method.name} needs {need.split(':')[-1]} clean labelled samples, got none")
    if clean is not None and isinstance(clean.x, (Tensor, list)):
        model.modality.check(clean.x)


def per_row(values: Tensor, n: int, what: str) -> Tensor:
    """Check that a method returned one finite float per row."""
    if values.shape != (n,) or not torch.isfinite(values).all():
        raise InputError(f"{what}: expected {n} finite scores, got shape {tuple(values.shape)}")
    return values.float().cpu()
