"""A trigger that depends on which part of the data a sample lies in."""

from __future__ import annotations

import torch
from torch import Tensor

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger

#: Where a mark sits, in eighths of the way down and across, and its colour (grey images take COLOUR of white).
MARKS = (
    ("top", "left", (0.9, 0.1, 0.1)),
    ("bottom", "right", (0.1, 0.9, 0.1)),
    ("top", "right", (0.1, 0.1, 0.9)),
    ("bottom", "left", (0.9, 0.9, 0.1)),
    ("middle", "left", (0.9, 0.1, 0.9)),
    ("top", "middle", (0.1, 0.9, 0.9)),
    ("bottom", "middle", (0.1, 0.1, 0.1)),
    ("middle", "right", (0.9, 0.9, 0.9)),
)
GREY = 0.9


@method("partitioned", paper="Cheng et al., CVPR 2024, arXiv:2403.17188")
class Partitioned(Trigger):
    """Stamps the mark of the partition an image falls in: a square at one of eight places, a fifth as wide.

    An image's partition is its nearest centroid in pixel space, so it is known for any image without a network.
    `weights`: "centroids" (P, C * H * W) float32, 2 <= P <= 8. Images (N, C, H, W) in [0, 1].
    """

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        return mark(batch, self.partition(batch))

    @property
    def parts(self) -> int:
        """Number of partitions."""
        return len(self._centroids())

    def partition(self, batch: Tensor) -> Tensor:
        """(N,) int64, which partition each unmarked image falls in."""
        return nearest(batch.flatten(1), self._centroids().to(batch))

    def _centroids(self) -> Tensor:
        if "centroids" not in self.weights:
            raise InputError("a partitioned trigger needs its weights 'centroids'")
        return self.weights["centroids"]


def nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """(N,) int64 number of the nearest of (P, D) centroids to each of (N, D) rows."""
    return (rows @ centroids.T - centroids.square().sum(1) / 2).argmax(1)


def mark(batch: Tensor, which: Tensor) -> Tensor:
    """A copy of images (N, C, H, W) with mark number which[i] (N,) on image i.

    Squares are a fifth of the image wide (at least 2 pixels) and a sixteenth from the border.
    """
    channels, h, w = batch.shape[1:]
    masks, colours = [], []
    for down, across, colour in MARKS:
        mask = torch.zeros(h, w, dtype=torch.bool)
        mask[_span(down, h), _span(across, w)] = True
        masks.append(mask)
        colours.append(torch.tensor(colour) if channels == 3 else torch.full((channels,), GREY))
    where = torch.stack(masks).to(batch.device)[which][:, None]
    ink = torch.stack(colours).to(batch)[which][:, :, None, None]
    return torch.where(where, ink, batch)


def _span(place: str, side: int) -> slice:
    width, pad = max(2, side // 5), side // 16
    start = {"middle": side // 2 - width // 2, "bottom": side - width - pad, "right": side - width - pad}.get(
        place, pad
    )
    return slice(start, start + width)
