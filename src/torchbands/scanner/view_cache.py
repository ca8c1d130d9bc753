"""Cache of the views' results for one reference, stored next to it with the settings used and a checksum.

Results depend on device and precision: another device, or bfloat16, gives other numbers, and a suspect must not be
ranked among them. Both are therefore part of the cache key. The batch size only affects rounding (random starts belong
to triggers, not to batches); it is recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchbands.core.devices import default_device
from torchbands.core.errors import BandsError
from torchbands.core.model import Model, fast_dtype
from torchbands.zoo.files import new_file, sweep

from .views import View

SEEN = "views.safetensors"
#: Numbers of pairs of classes that a model was asked about, beside those that a view chose itself.
ASKED = "asked"


@dataclass(frozen=True)
class How:
    """Where and in which precision a model is looked at by views that ask for none of their own."""

    device: torch.device
    precision: str = "float32"

    @classmethod
    def of(cls, model: Model) -> How:
        return cls(model.device, model.precision)

    @classmethod
    def here(cls) -> How:
        """References are looked at so where no suspect says otherwise."""
        return cls(default_device())

    def key(self, view: View) -> str:
        """The name that a view's numbers are kept under."""
        precision = getattr(view.detector, "precision", self.precision)
        dtype = fast_dtype(self.device) if precision == "fast" else torch.float32
        return f"{view.key()}@{self.device.type}-{str(dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Numbers:
    """name -> numbers, and name -> rows that went through at once when they were made."""

    tensors: Mapping[str, Tensor]
    chunks: Mapping[str, int]


def read(member: Path, weights: str) -> Numbers:
    """The numbers of a reference whose weights have this sha256. Files of older versions, which say less, are none.

    Raises BandsError where they are damaged, or are another model's.
    """
    path = member / SEEN
    if not path.is_file():
        return Numbers({}, {})
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "sha256" not in said:
            return Numbers({}, {})
        if said["sha256"] != _digest(tensors, said["chunks"], said["weights"]):
            raise ValueError("it was altered")
        if said["weights"] != weights:
            raise ValueError("it was seen of other weights")
        return Numbers({name: t.float() for name, t in tensors.items()}, json.loads(said["chunks"]))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BandsError(
            f"the reference model {member} is damaged ({SEEN}: {error})",
            hint=f"remove {path}; the next scan looks at the reference again",
        ) from None


def write(member: Path, numbers: Numbers, weights: str) -> None:
    """Keep the numbers of a reference whose weights have this sha256, whole or not at all."""
    tensors = {name: t.contiguous() for name, t in numbers.tensors.items()}
    chunks = json.dumps(dict(numbers.chunks), sort_keys=True)
    said = {"sha256": _digest(tensors, chunks, weights), "chunks": chunks, "weights": weights}
    sweep(member, SEEN)
    with new_file(member / SEEN) as temporary:  # another scan may be looking at the same references
        save_file(tensors, temporary, metadata=said)


def _digest(tensors: Mapping[str, Tensor], *said: str) -> str:
    made = hashlib.sha256(json.dumps(said).encode())
    for name, t in sorted(tensors.items()):
        made.update(f"{name}{tuple(t.shape)}{t.dtype}".encode())
        made.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()
