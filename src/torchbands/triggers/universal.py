"""One learned perturbation added to every image."""

from __future__ import annotations

from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


@method("added-pattern", paper="Moosavi-Dezfooli et al., CVPR 2017, arXiv:1610.08401")
class AddedPattern(Trigger):
    """Adds `scale` times a learned pattern to images in [0, 1] and clips.

    `weights`: "delta" (C, H, W) float32, in shares of the pixel range.
    """

    scale: float = 1.0
    """Magnification of the pattern."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        if "delta" not in self.weights:
            raise InputError("an added pattern needs its weights 'delta'")
        return (batch + self.scale * self.weights["delta"].to(batch)).clamp(0, 1)
