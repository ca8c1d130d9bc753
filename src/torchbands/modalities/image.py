"""Images: float32 in [0, 1], (N, C, H, W). The continuous space is the pixels themselves."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchbands.core.data import Batch
from torchbands.core.errors import InputError
from torchbands.core.method import Spec, method
from torchbands.core.modality import Encoded, Layout, Modality, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.template import Template
from torchbands.core.trigger import Trigger
from torchbands.modalities.image_templates import BlendTemplate, PatchTemplate
from torchbands.triggers.image import MaskPattern, Patch
from torchbands.triggers.universal import AddedPattern

#: By how much a mixture of two values in [0, 1] may leave it.
ROUNDING = 1e-5
#: How likely an axis of so many is one of channels.
LIKELY_CHANNELS: Mapping[int | str, int] = {1: 2, 3: 2, 2: 1, 4: 1}
#: Channels -> name -> mean and std of each.
NORMALISATIONS: Mapping[int, Mapping[str, tuple[Sequence[float], Sequence[float]]]] = {
    3: {
        "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "to -1 ... 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "to 0 ... 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    },
    1: {
        "MNIST's": ((0.1307,), (0.3081,)),
        "Fashion-MNIST's": ((0.286,), (0.353,)),
        "to -1 ... 1": ((0.5,), (0.5,)),
        "to 0 ... 255": ((0.0,), (1 / 255,)),
    },
}


class MaskedPattern(Perturbation):
    """Neural Cleanse's trigger: a mask shared by the channels and a pattern, both through tanh into [0, 1]."""

    def __init__(self, channels: int, size: int, rng: RowRng) -> None:
        super().__init__()
        self.count = len(rng)
        self.mask_logit = nn.Parameter(rng.normal(1, size, size))
        self.pattern_logit = nn.Parameter(rng.normal(channels, size, size))

    def mask(self) -> Tensor:
        return self.mask_logit.tanh() / 2 + 0.5

    def pattern(self) -> Tensor:
        return self.pattern_logit.tanh() / 2 + 0.5

    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        mask, pattern = self.mask()[which], self.pattern()[which]
        return Encoded(torch.lerp(e.values, pattern, mask))

    def size(self) -> Tensor:
        return self.mask().sum((1, 2, 3))

    def harden(self, k: int) -> Trigger:
        return MaskPattern(
            weights={"mask": self.mask()[k].detach().cpu().clone(), "pattern": self.pattern()[k].detach().cpu().clone()}
        )


@method("image")
class Image(Modality):
    """Images of one size. Normalisation belongs inside the model."""

    plural: ClassVar[str] = "images"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout("(N, C, H, W)", (0, 1, 2, 3)), Layout("(N, H, W, C)", (0, 2, 3, 1)))
    whole_range: ClassVar[str] = "0 ... 255"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    has_pixels: ClassVar[bool] = True

    channels: int = 3
    """Colour channels."""
    size: int = 32
    """Height and width in pixels."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.channels, self.size, self.size

    @classmethod
    def of_samples(cls, first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Image | None:
        if not isinstance(first, Tensor) or first.ndim != 4 or first.shape[2] != first.shape[3]:
            return None
        return cls(channels=first.shape[1], size=first.shape[2])

    @classmethod
    def of_input(cls, shape: Sequence[Any]) -> tuple[Image | None, Layout | None]:
        if len(shape) != 4:
            return None, None
        first, last = (LIKELY_CHANNELS.get(n, 0) for n in (shape[1], shape[3]))
        if first == last:
            return None, None
        channels, height, width = (shape[1], *shape[2:]) if first > last else (shape[3], *shape[1:3])
        square = isinstance(height, int) and height > 0 and height == width
        return cls(channels=channels, size=height) if square else None, cls.layouts[1] if last > first else None

    def reader_settings(self) -> dict[str, int]:
        return {"size": self.size, "channels": self.channels}

    def whole(self, x: Tensor) -> Tensor:
        return (x * 255).round().clamp(0, 255)

    def usual_normalisations(self) -> Mapping[str, tuple[Sequence[float], Sequence[float]]]:
        return NORMALISATIONS.get(self.channels, {})

    def default_network(self) -> Spec:
        return {"name": "small-cnn"}

    def check(self, batch: Tensor) -> None:
        shape = self.row_shape
        if not isinstance(batch, Tensor):
            raise InputError(f"images are a tensor (N, {', '.join(map(str, shape))}), got {type(batch).__name__}")
        if tuple(batch.shape[1:]) != shape:
            raise InputError(f"images are (N, {', '.join(map(str, shape))}), got {tuple(batch.shape)}")
        if batch.dtype != torch.float32:
            raise InputError(
                f"images are float32 in [0, 1], got {batch.dtype}",
                hint="divide uint8 images by 255: x.float() / 255" if batch.dtype == torch.uint8 else "x.float()",
            )
        low, high = (float(batch.min()), float(batch.max())) if batch.numel() else (0.0, 0.0)
        if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):
            raise InputError(
                f"images are in [0, 1], got values from {low:.3g} to {high:.3g}",
                hint="put normalisation inside the model and divide pixels by 255",
            )

    def encode(self, batch: Tensor) -> Encoded:
        return Encoded(batch)

    def random(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, self.channels, self.size, self.size, generator=rng)

    def default_trigger(self) -> Trigger:
        return Patch()

    def plain_triggers(self) -> list[Trigger]:
        first = Patch()
        return [first, first.but(corner="top-left", fill="checker"), first.but(corner="bottom-left", fill="checker")]

    def shift(self) -> Callable[[Tensor], Trigger]:
        return lambda delta: AddedPattern(weights={"delta": delta})

    def blend(self, a: Tensor, b: Tensor, alpha: float, beta: float | None, rng: RowRng) -> Tensor:
        return (alpha * a + (1 - alpha if beta is None else beta) * b).clamp_(0, 1)

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        return MaskedPattern(self.channels, self.size, rng).to(model.device)

    def templates(self) -> tuple[Template[Any], ...]:
        return PatchTemplate(self), BlendTemplate(self)

    def distance(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        diff = (a - b).flatten(1)
        mse = diff.square().mean(1)
        changed = (a != b).any(1).flatten(1).float()
        return {
            "l0_pixels": changed.sum(1),
            "l2": diff.norm(dim=1),
            "linf": diff.abs().amax(1),
            "psnr_db": -10 * mse.log10(),
            "ssim": ssim(a, b),
            "high_frequency": high_frequency(b) - high_frequency(a),
        }

    def contrast(self, a: Tensor, b: Tensor) -> Tensor:
        """Absolute difference, stretched so that its largest value is white."""
        diff = (a - b).abs()
        return diff / diff.flatten(1).amax(1).clamp_min(1e-6)[:, None, None, None]

    def render(self, row: Tensor) -> str:
        return f'<img class="sample" alt="image" src="data:image/png;base64,{png(row)}">'


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """(N,) structural similarity with data range 1 (Wang et al., 2004): 11x11 Gaussian window, sigma 1.5, valid region.

    Images smaller than 11 pixels use the largest odd window that fits.
    """
    a, b = a.double(), b.double()  # variances are differences of nearly equal numbers
    side = min(11, a.shape[-1] - (1 - a.shape[-1] % 2))
    at = torch.arange(side, dtype=a.dtype, device=a.device) - side // 2
    g = torch.exp(-(at**2) / (2 * 1.5**2))
    g = g / g.sum()
    window = (g[:, None] * g[None]).expand(a.shape[1], 1, side, side)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=a.shape[1])

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return value.flatten(1).mean(1).float()


def high_frequency(x: Tensor) -> Tensor:
    """(N,) share of spectral energy (constant part left out) above half the Nyquist frequency, in [0, 1]."""
    energy = torch.fft.fft2(x.float()).abs().square().mean(1)
    fy = torch.fft.fftfreq(x.shape[-2], device=x.device).abs()
    fx = torch.fft.fftfreq(x.shape[-1], device=x.device).abs()
    high = torch.maximum(fy[:, None], fx[None]) > 0.25
    energy[:, 0, 0] = 0
    share: Tensor = energy[:, high].sum(1) / energy.flatten(1).sum(1).clamp_min(1e-12)
    return share


def png(row: Tensor) -> str:
    """Base64 PNG of one (C, H, W) image in [0, 1]."""
    from PIL import Image as Pillow

    pixels = (row.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    flat = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels[:3], 0, -1)
    buffer = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(flat)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
