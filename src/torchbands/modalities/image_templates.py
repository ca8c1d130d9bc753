"""Trigger templates of images: an opaque square, and a faint pattern over the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from torchbands.core.template import State, Template, below
from torchbands.core.trigger import Trigger
from torchbands.triggers.image import MaskPattern

if TYPE_CHECKING:
    from .image import Image  # noqa: F401  # the name in quotes below


class PatchTemplate(Template["Image"]):
    """An opaque square of any content anywhere, at most 15 % of the image's side (at least 3 pixels)."""

    name = "patch"

    @property
    def largest(self) -> int:
        """Side in pixels."""
        return min(max(3, round(0.15 * self.modality.size)), self.modality.size)

    def draw(self, count: int, rng: torch.Generator) -> State:
        side = torch.randint(1, self.largest + 1, (count,), generator=rng)
        return {"side": side, "pattern": self._pattern(count, rng)} | {
            axis: below(self.modality.size - side + 1, rng) for axis in ("top", "left")
        }

    def _pattern(self, count: int, rng: torch.Generator) -> Tensor:
        """Black, white, any colour, black-and-white noise or noise, a fifth each."""
        shape = (self.modality.channels, self.largest, self.largest)
        kind = torch.randint(5, (count, 1, 1, 1), generator=rng)
        colour = torch.rand(count, shape[0], 1, 1, generator=rng).expand(count, *shape)
        noise = torch.rand(count, *shape, generator=rng)
        out = torch.where(kind == 1, 1.0, torch.where(kind == 2, colour, 0.0))
        return torch.where(kind == 3, noise.round(), torch.where(kind == 4, noise, out))

    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        count, size = len(state["side"]), self.modality.size
        kind = torch.randint(4, (count,), generator=rng)
        step = max(1, round(heat * size / 3))
        side = state["side"] + torch.where(kind == 0, torch.randint(-1, 2, (count,), generator=rng), 0)
        moved = {"side": side.clamp(1, self.largest)}
        for axis in ("top", "left"):
            shift = torch.randint(-step, step + 1, (count,), generator=rng)
            at = state[axis] + torch.where(kind <= 1, shift, 0)
            moved[axis] = torch.minimum(at.clamp_min(0), size - moved["side"])
        share = torch.where(kind == 3, 1.0, max(heat, 0.15)).view(-1, 1, 1, 1)  # new altogether, or some cells
        cells = torch.rand(count, 1, self.largest, self.largest, generator=rng) < share
        fresh = (kind >= 2).view(-1, 1, 1, 1) & cells
        return moved | {"pattern": torch.where(fresh, self._pattern(count, rng), state["pattern"])}

    def canvas(self, state: State) -> tuple[Tensor, Tensor]:
        """(count, 1, H, W) mask and (count, C, H, W) pattern."""
        at = torch.arange(self.modality.size)
        y, x = (at - state[axis][:, None] for axis in ("top", "left"))
        inside = [(d >= 0) & (d < state["side"][:, None]) for d in (y, x)]
        mask = (inside[0][:, :, None] & inside[1][:, None, :]).float()[:, None]
        y, x = (d.clamp(0, self.largest - 1) for d in (y, x))
        k = torch.arange(len(y))[:, None, None]
        pattern = state["pattern"].permute(0, 2, 3, 1)[k, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        return mask, pattern * mask

    def write(self, rows: Tensor, state: State) -> Tensor:
        mask, pattern = (t[:, None].to(rows) for t in self.canvas(state))
        return ((1 - mask) * rows + mask * pattern).flatten(0, 1)

    def harden(self, state: State, k: int) -> Trigger:
        mask, pattern = self.canvas({name: t[k : k + 1] for name, t in state.items()})
        return MaskPattern(weights={"mask": mask[0].clone(), "pattern": pattern[0].clone()})


class BlendTemplate(PatchTemplate):
    """A pattern over the whole image, one fifth of every pixel."""

    name = "blend"
    alpha: ClassVar[float] = 0.2

    def draw(self, count: int, rng: torch.Generator) -> State:
        return {"pattern": self._pattern(count, rng)}

    def _pattern(self, count: int, rng: torch.Generator) -> Tensor:
        """Noise at one of four resolutions, from 4 x 4 to the image's own."""
        channels, size = self.modality.channels, self.modality.size
        grains = [min(g, size) for g in (4, 8, 16, size)]
        kinds = [F.interpolate(torch.rand(count, channels, g, g, generator=rng), size=(size, size)) for g in grains]
        which = torch.randint(len(grains), (count,), generator=rng)
        return torch.stack(kinds)[which, torch.arange(count)]

    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        """A new rectangle, from half the image down to an eighth of its side."""
        pattern, size = state["pattern"], self.modality.size
        side = max(2, round(size * (0.125 + 0.375 * heat)))
        at = torch.arange(size)
        start = torch.randint(1 - side // 2, size - side // 2 + 1, (2, len(pattern), 1), generator=rng)
        inside = (at >= start) & (at < start + side)
        mask = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
        return {"pattern": torch.where(mask, self._pattern(len(pattern), rng), pattern)}

    def canvas(self, state: State) -> tuple[Tensor, Tensor]:
        pattern = state["pattern"]
        return torch.full((len(pattern), 1, *pattern.shape[2:]), self.alpha), pattern
