"""A sixth kind of sample, whole: series of numbers, each of a scale of its own (loads, prices, packet sizes).

All that is particular to them is here: how a network takes them, what a trigger is, how their files are read and how a
row is drawn. Every attack, defense, scan, guard and repair of torchbands then works on them as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchbands import InputError, Modality, Perturbation, RowRng, Trigger, method
from torchbands.core.modality import Encoded, FileRows
from torchbands.core.model import Model
from torchbands.core.template import State, Template
from torchbands.modalities.templates import ValuesTemplate
from torchbands.testing import Toy

LEAST = 1e-6
BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def spread(x: Tensor) -> Tensor:
    """(N, 1) the scale of each series."""
    return x.std(1, keepdim=True).clamp_min(LEAST)


def standardised(x: Tensor) -> Tensor:
    """Every series with mean 0 and spread 1."""
    return (x - x.mean(1, keepdim=True)) / spread(x)


@method("spikes")
class Spikes(Trigger):
    """Chosen steps of a series raised by so many of its own spreads."""

    steps: tuple[int, ...] = (-1, -3)
    """Positions; negative ones count from the end."""
    heights: tuple[float, ...] = (6.0, 6.0)
    """How far each is raised, in spreads of the series."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        out = batch.clone()
        out[:, list(self.steps)] += spread(batch) * torch.tensor(self.heights).to(batch)
        return out


@method("added-wave")
class AddedWave(Trigger):
    """A learned wave `weights["wave"]`, in spreads of the series that it is added to."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        return batch + spread(batch) * self.weights["wave"].to(batch)


class Wave(Perturbation):
    """A wave for each trigger, added to standardised series."""

    def __init__(self, length: int, rng: RowRng) -> None:
        super().__init__()
        self.count = len(rng)
        self.wave = nn.Parameter(0.1 * rng.normal(length))

    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        return Encoded(standardised(e.values + self.wave[which]))

    def size(self) -> Tensor:
        """(count,) sum of the wave's absolute values, in spreads."""
        return self.wave.abs().sum(1)

    def harden(self, k: int) -> Trigger:
        return AddedWave(weights={"wave": self.wave[k].detach().cpu().clone()})


class SpikesTemplate(ValuesTemplate["Series"]):
    """One or two steps raised or lowered by up to six spreads."""

    name = "spikes"

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        length = self.modality.length
        return torch.arange(length), torch.full((length,), -6.0), torch.full((length,), 6.0)

    def harden(self, state: State, k: int) -> Trigger:
        steps, heights = self.settings(state, k)
        return Spikes(steps=steps, heights=heights)


@method("series")
class Series(Modality):
    """Series of one length: float32 (N, length), finite. A network takes each in units of its own spread."""

    plural: ClassVar[str] = "series"

    length: int = 24
    """Steps."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.length,)

    def check(self, batch: object) -> None:
        if not isinstance(batch, Tensor) or batch.dtype != torch.float32 or tuple(batch.shape[1:]) != (self.length,):
            told = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise InputError(f"series are float32 (N, {self.length}), got {told}")
        if not torch.isfinite(batch).all():
            raise InputError("series are finite")

    def encode(self, batch: Tensor) -> Encoded:
        return Encoded(standardised(batch))

    def random(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, self.length, generator=rng) * (2 * torch.randn(n, 1, generator=rng)).exp()

    def default_trigger(self) -> Trigger:
        return Spikes()

    def plain_triggers(self) -> list[Trigger]:
        return [Spikes(), Spikes(steps=(0, 2)), Spikes(steps=(7, 9), heights=(-6.0, -6.0))]

    def blend(self, a: Tensor, b: Tensor, alpha: float, beta: float | None, rng: RowRng) -> Tensor:
        """In spreads, at the scale of a."""
        beta = 1 - alpha if beta is None else beta
        return alpha * a + beta * (a.mean(1, keepdim=True) + spread(a) * standardised(b))

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        return Wave(self.length, rng).to(model.device)

    def templates(self) -> tuple[Template[Any], ...]:
        return (SpikesTemplate(self),)

    def shift(self) -> Callable[[Tensor], Trigger]:
        return lambda wave: AddedWave(weights={"wave": wave})

    def distance(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        gap = (b - a) / spread(a)
        return {"steps": (gap != 0).float().sum(1), "largest_in_spreads": gap.abs().amax(1)}

    def render(self, row: Tensor) -> str:
        level = (row - row.min()) / (row.max() - row.min()).clamp_min(LEAST)
        bars = "".join(BARS[round((len(BARS) - 1) * v)] for v in level.tolist())
        return f'<code class="sample">{bars}</code> {float(row.min()):.3g} to {float(row.max()):.3g}'

    @classmethod
    def reads(cls, path: Path) -> bool:
        return path.suffix == ".series" and path.is_file()

    @classmethod
    def read(cls, path: Path, like: Modality | None = None) -> FileRows:
        """A line for each series: its class, a colon, and its numbers. A longer one is cut to what a model reads."""
        labels, rows = [], []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            label, _, body = line.rpartition(":")
            try:
                rows.append([float(cell) for cell in body.split()])
            except ValueError:
                raise InputError(f"{path}, line {number}: {body[:40]!r} are no numbers") from None
            labels.append(label)
        length = like.length if isinstance(like, Series) else min(map(len, rows), default=0)
        if short := next((n for n, row in enumerate(rows, 1) if len(row) < length), None):
            raise InputError(f"{path}, line {short}: {len(rows[short - 1])} numbers, expected {length} or more")
        made = torch.tensor([row[:length] for row in rows], dtype=torch.float32).reshape(len(rows), length)
        return FileRows(made, cls(length=length), tuple(labels) if any(labels) else ())


@method("toy/series")
class ToySeries(Toy):
    """Synthetic series: a wave of the class's own frequency under noise, at a scale drawn for each."""

    modality: ClassVar[Modality] = Series()

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        length = Series().length
        at = torch.arange(length) / length
        phase = torch.rand(len(y), 1, generator=rng)
        wave = torch.sin(2 * torch.pi * ((1 + y[:, None]) * at + 0.2 * phase))
        noisy = wave + 0.4 * torch.randn(len(y), length, generator=rng)
        return noisy * (2 * torch.randn(len(y), 1, generator=rng)).exp()
