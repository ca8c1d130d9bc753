"""Triggers drawn by a network for each image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.errors import InputError
from torchbands.core.method import method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger


class Generator(nn.Module):
    """A small encoder-decoder: images (N, channels, H, W) in [0, 1] -> (N, outputs, H, W) in [0, 1].

    `depth` halvings by max-pooling, as many bilinear doublings; two convolutions with BatchNorm and ReLU at every
    resolution, widths doubling on the way down. Squares of fold x fold pixels become channels first and pixels again
    last, so that with fold 2 everything runs at half the resolution.
    """

    def __init__(self, channels: int, outputs: int, width: int, depth: int, fold: int) -> None:
        super().__init__()
        self.fold = fold
        channels, outputs = channels * fold**2, outputs * fold**2
        sides = [width * 2**i for i in range(depth)]
        self.down = nn.ModuleList(
            nn.Sequential(*_block(before, after), *_block(after, after))
            for before, after in zip([channels, *sides], sides, strict=False)
        )
        self.middle = nn.Sequential(*_block(sides[-1], sides[-1]))
        ups = [sides[-1], *reversed(sides[:-1])]
        ends = [*ups[1:], outputs]
        self.up = nn.ModuleList(
            nn.Sequential(*_block(before, before), *_block(before, after, last=i == depth - 1))
            for i, (before, after) in enumerate(zip(ups, ends, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.fold, 0, -height % self.fold), mode="replicate")
        x = F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last)
        sizes = []
        for block in self.down:
            x = block(x)
            sizes.append(x.shape[-2:])
            x = F.max_pool2d(x, 2, ceil_mode=True)
        x = self.middle(x)
        for block, size in zip(self.up, reversed(sizes), strict=True):
            x = block(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        return F.pixel_shuffle(x, self.fold)[..., :height, :width].tanh() / 2 + 0.5


def _block(before: int, after: int, *, last: bool = False) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, momentum=0.05)]
    return layers if last else [*layers, nn.ReLU()]


def harden(mask: Tensor) -> Tensor:
    """A soft mask in [0, 1] pushed towards 0 and 1."""
    return (20 * mask - 10).tanh() / 2 + 0.5


def write(pattern: Generator, mask: Generator, x: Tensor, source: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Images with the trigger generated from `source` (from themselves when None), and its patterns, differentiable."""
    source = x if source is None else source
    patterns, masks = pattern(source), harden(mask(source))
    return torch.lerp(x, patterns, masks.expand_as(x)), patterns


@method("generated", paper="Nguyen and Tran, NeurIPS 2020, arXiv:2010.08138")
class Generated(Trigger):
    """(1 - m(x)) * x + m(x) * p(x): every image x in [0, 1] gets its own pattern p(x) and sparse mask m(x).

    `weights` holds the two networks' tensors, named "pattern/..." and "mask/...".
    """

    width: int = 8
    """Channels of the generators' first stage."""
    depth: int = 2
    """Number of downsampling stages."""
    fold: int = 2
    """Side of the pixel blocks that the generators treat as one pixel; 1 as in the paper."""

    def __call__(self, batch: Tensor, rng: RowRng) -> Tensor:
        if not self.weights:
            raise InputError("a generated trigger needs its networks' weights")
        pattern, mask = self.networks(batch.device)
        with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
            parts = [write(pattern, mask, part)[0] for part in batch.split(256)]
        return torch.cat(parts) if parts else batch.clone()

    def networks(self, device: torch.device) -> tuple[Generator, Generator]:
        """The pattern and the mask generator, in evaluation mode."""
        made = []
        for part in ("pattern", "mask"):
            head = f"{part}/"
            state = {k[len(head) :].replace("/", "."): t for k, t in self.weights.items() if k.startswith(head)}
            folded, made_of = state["down.0.0.weight"].shape[1], state[f"up.{self.depth - 1}.3.weight"].shape[0]
            sides = (folded // self.fold**2, made_of // self.fold**2, self.width, self.depth, self.fold)
            with torch.device("meta"):
                network = Generator(*sides)
            network.load_state_dict(state, assign=True)
            made.append(network.eval().to(device))
        return made[0], made[1]


def packed(pattern: Generator, mask: Generator) -> Mapping[str, Tensor]:
    """Both networks' tensors as the weights of a Generated trigger."""
    return {
        f"{part}/{k.replace('.', '/')}": t.detach().cpu().clone()
        for part, network in (("pattern", pattern), ("mask", mask))
        for k, t in network.state_dict().items()
    }
