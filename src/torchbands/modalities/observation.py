"""Observations of a controlled system: float32 (N, ...) of any shape, with bounds or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchbands.core.data import Batch
from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.modality import Encoded, Modality, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.template import State, Template
from torchbands.core.trigger import Trigger
from torchbands.modalities.templates import ValuesTemplate
from torchbands.triggers.image import MaskPattern
from torchbands.triggers.observation import AddDelta, SetDims

#: Value the default trigger writes where observations have no bounds; they are near unit scale by convention.
FAR = 3.0


class BoundedPattern(Perturbation):
    """A mask and a pattern over every dimension, the pattern within the bounds."""

    def __init__(self, shape: tuple[int, ...], low: float, high: float, rng: RowRng) -> None:
        super().__init__()
        self.count, self.low, self.high = len(rng), low, high
        self.mask_logit = nn.Parameter(rng.normal(*shape))
        self.pattern_logit = nn.Parameter(rng.normal(*shape))

    def mask(self) -> Tensor:
        return self.mask_logit.sigmoid()

    def pattern(self) -> Tensor:
        return self.low + (self.high - self.low) * self.pattern_logit.sigmoid()

    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        return Encoded(torch.lerp(e.values, self.pattern()[which], self.mask()[which]))

    def size(self) -> Tensor:
        """(count,) dimensions."""
        return self.mask().flatten(1).sum(1)

    def harden(self, k: int) -> Trigger:
        mask, pattern = self.mask()[k].detach().cpu().clone(), self.pattern()[k].detach().cpu().clone()
        return MaskPattern(weights={"mask": mask, "pattern": pattern})


class Offset(Perturbation):
    """An additive offset, for observations without bounds."""

    def __init__(self, shape: tuple[int, ...], rng: RowRng) -> None:
        super().__init__()
        self.count = len(rng)
        self.delta = nn.Parameter(0.1 * rng.normal(*shape))

    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        return Encoded(e.values + self.delta[which])

    def size(self) -> Tensor:
        """(count,) sum of absolute offsets, in the observation's units."""
        return self.delta.abs().flatten(1).sum(1)

    def harden(self, k: int) -> Trigger:
        return AddDelta(weights={"delta": self.delta[k].detach().cpu().clone()})


@method("observation")
class Observation(Modality):
    """Observations of a policy. Scaling belongs inside the model."""

    plural: ClassVar[str] = "observations"

    shape: tuple[int, ...] = (4,)
    """Shape of one observation."""
    low: float | None = None
    """Smallest possible value of every dimension; None if unbounded."""
    high: float | None = None
    """Largest possible value of every dimension; None if unbounded."""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise InputError(f"observations have both bounds or none, got low={self.low} and high={self.high}")

    @property
    def bounds(self) -> tuple[float, float] | None:  # type: ignore[override]
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @classmethod
    def of_samples(cls, first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Observation | None:
        """Flat numbers of which a few are known, and no ranges."""
        flat = isinstance(first, Tensor) and first.ndim == 2 and first.is_floating_point()
        return cls(shape=(first.shape[1],)) if flat and every is None and isinstance(first, Tensor) else None

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape

    def check(self, batch: object) -> None:
        if not isinstance(batch, Tensor):
            raise InputError(f"observations are a tensor (N, *{self.shape}), got {type(batch).__name__}")
        if tuple(batch.shape[1:]) != self.shape:
            raise InputError(f"observations are (N, *{self.shape}), got {tuple(batch.shape)}")
        if batch.dtype != torch.float32:
            raise InputError(f"observations are float32, got {batch.dtype}", hint="x.float()")
        low, high = self.bounds or (-math.inf, math.inf)
        slack = 0.0 if self.bounds is None else 1e-5 * (high - low)  # mixtures are rounded
        if not torch.isfinite(batch).all() or bool(((batch < low - slack) | (batch > high + slack)).any()):
            raise InputError(
                f"observations are finite and in [{low:g}, {high:g}], "
                f"got values from {float(batch.min()):.3g} to {float(batch.max()):.3g}"
            )

    def encode(self, batch: Tensor) -> Encoded:
        return Encoded(batch)

    def random(self, n: int, rng: torch.Generator) -> Tensor:
        if self.bounds is None:
            return torch.randn(n, *self.shape, generator=rng)
        low, high = self.bounds
        return low + (high - low) * torch.rand(n, *self.shape, generator=rng)

    def default_trigger(self) -> Trigger:
        """The last dimension at its largest value."""
        return SetDims(dims=(-1,), values=(FAR if self.high is None else self.high,))

    def blend(self, a: Tensor, b: Tensor, alpha: float, beta: float | None, rng: RowRng) -> Tensor:
        return self.project(alpha * a + (1 - alpha if beta is None else beta) * b)

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        made = Offset(self.shape, rng) if self.bounds is None else BoundedPattern(self.shape, *self.bounds, rng)
        return made.to(model.device)

    def templates(self) -> tuple[Template[Any], ...]:
        return (DimensionsTemplate(self),)

    def distance(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        diff = (a - b).flatten(1)
        return {"dimensions": (diff != 0).float().sum(1), "l2": diff.norm(dim=1), "linf": diff.abs().amax(1)}

    def render(self, row: Tensor) -> str:
        values = row.flatten().tolist()
        shown = ", ".join(f"{v:.3g}" for v in values[:32])
        return f'<code class="sample">({shown}{", ..." if len(values) > 32 else ""})</code>'


class DimensionsTemplate(ValuesTemplate[Observation]):
    """One or two dimensions of an observation, within its bounds (3 units of scale where there are none)."""

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        low, high = self.modality.bounds or (-FAR, FAR)
        at = torch.arange(int(torch.tensor(self.modality.shape).prod()))
        return at, torch.full((len(at),), low), torch.full((len(at),), high)

    def harden(self, state: State, k: int) -> Trigger:
        dims, values = self.settings(state, k)
        return SetDims(dims=dims, values=values)
