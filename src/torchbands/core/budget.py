"""Batch sizes by memory: the footprint of a row is measured, and a batch that runs out of memory is halved."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from .errors import InputError
from .modality import Encoded

if TYPE_CHECKING:
    from .model import Model

T = TypeVar("T")

#: Rows at once at most. Beyond 256 images a CPU's allocator returns every activation to the system (measured).
MOST = {"cpu": 256, "cuda": 4096}
#: Bytes that the activations of one step may take where the environment does not say, on anything but CUDA.
BYTES = 1 << 30
#: The environment variable that says otherwise: "2GB", "512 MB", or a number of bytes.
VARIABLE = "TORCHBANDS_MEMORY"
#: Rows that are measured, and copies of a raw row that a search keeps beside the activations.
MEASURED, COPIES = 2, 4

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def budget(device: torch.device) -> int:
    """Memory for activations in bytes: TORCHBANDS_MEMORY, else half of the free CUDA memory, else 1 GiB."""
    said = os.environ.get(VARIABLE, "").strip()
    if said:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", said.upper())
        if found is None or (size := int(float(found[1]) * _UNITS[found[2]])) < 1:
            raise InputError(f"{VARIABLE} is {said!r}", hint="a size such as 2GB, 512MB, or a number of bytes")
        return size
    if device.type != "cuda":
        return BYTES
    free: int = torch.cuda.mem_get_info(device)[0]
    return free // 2


class Live(TorchDispatchMode):
    """Bytes of the tensors that are made and alive while it is active; `peak` is the most at any one time.

    Args:
        known: tensors that were there before, and views of them, which are not counted.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for tensor in known:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self._known:
                self._known[storage] = True
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes()).atexit = False
        return out

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Eval mode, and nobody's hooks are called: what is tried inside leaves no trace in what others count."""
    layers = list(module.modules())
    modes = [layer.training for layer in layers]
    hooks = [(layer._forward_hooks, layer._forward_pre_hooks) for layer in layers]
    try:
        for layer in layers:
            layer.training = False
            layer._forward_hooks, layer._forward_pre_hooks = type(layer._forward_hooks)(), type(layer._forward_hooks)()
        yield
    finally:
        for layer, mode, (after, before) in zip(layers, modes, hooks, strict=True):
            layer.training, layer._forward_hooks, layer._forward_pre_hooks = mode, after, before


def longest(model: Model, rows: int) -> Encoded:
    """Noise rows, embedded, with every position in use."""
    e = model.embed(model.modality.random(rows, torch.Generator().manual_seed(0)))
    return e if e.mask is None else Encoded(e.values, torch.ones_like(e.mask), e.tokens)


def row_bytes(model: Model, *, gradients: bool) -> int:
    """Most bytes that one row's activations take at any time in a forward pass or, with `gradients`, also in the
    backward pass to the input. Float32 passes of the longest rows; they are not counted as anybody's."""
    passes = model.passes.forward
    with undisturbed(model.module), torch.set_grad_enabled(gradients):
        plain = model.at_precision("float32")
        e = longest(plain, MEASURED)
        values = e.values.detach().float().requires_grad_(gradients)
        own = [*model.module.parameters(), *model.module.buffers()]
        with Live([*own, *(t for t in e if isinstance(t, Tensor)), values]) as live:
            logits = plain.logits_at(Encoded(values, e.mask, e.tokens))
            if gradients:
                torch.autograd.grad(logits.sum(), values)
    model.passes.forward = passes
    peak: int = live.peak
    return max(1, peak // MEASURED + COPIES * e.values[0].numel() * 4)


@dataclass
class Room:
    """What one model's rows weigh, found when first asked for. `fits` holds what memory refused, without and with
    gradients: rows that may still be tried at once."""

    measured: dict[bool, int] = field(default_factory=dict)
    fits: dict[bool, int] = field(default_factory=dict)

    def rows(self, model: Model, *, gradients: bool) -> int:
        """Rows at once: the budget over what one weighs, between 1 and the most that the device likes."""
        if gradients not in self.measured:
            self.measured[gradients] = row_bytes(model, gradients=gradients)
        most = min(MOST.get(model.device.type, 256), self.fits.get(gradients, 1 << 30))
        return max(1, min(most, budget(model.device) // self.measured[gradients]))


_ROOMS: weakref.WeakKeyDictionary[nn.Module, Room] = weakref.WeakKeyDictionary()


def room_of(module: nn.Module) -> Room:
    """The room of a module: of all models that wrap it."""
    return _ROOMS.setdefault(module, Room())


def refused(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error."""
    known = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in known)
    )


def in_parts(
    model: Model,
    count: int,
    work: Callable[[Tensor], T],
    *,
    each: int = 1,
    gradients: bool = False,
    rng: torch.Generator | None = None,
) -> list[T]:
    """`work` on consecutive parts (int64, on the CPU) of range(count), as many items at once as fit.

    Where memory runs out the model's rows at once are halved, for good, and the part is tried again.

    Args:
        each: rows that one item sends through the model together.
        gradients: whether `work` takes gradients.
        rng: what `work` draws from; a part that is tried again draws the same.
    """
    out: list[T] = []
    start = 0
    while start < count:
        rows = model.gradient_chunk if gradients else model.chunk
        part = torch.arange(start, min(count, start + max(1, rows // max(1, each))))
        state = None if rng is None else rng.get_state()
        try:
            out.append(work(part))
            start = int(part[-1]) + 1
            continue
        except (MemoryError, RuntimeError) as error:
            if rows == 1 or not refused(error) or "weights" not in model.capabilities:
                raise
        # out here the error, and what its frames held, are gone
        room_of(model.module).fits[gradients] = max(1, min(rows, len(part) * each) // 2)
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        if rng is not None and state is not None:
            rng.set_state(state)
    return out
