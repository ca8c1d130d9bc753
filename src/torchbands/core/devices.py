"""Which device is used, and what CUDA is told: the same seed gives the same weights, and every gradient exists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from .errors import InputError

#: The environment variable that names a device: "cpu", "cuda", "cuda:1".
VARIABLE = "TORCHBANDS_DEVICE"

# cuBLAS reads this when it is first used: with it, products that are split over streams add up in one order
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def default_device() -> torch.device:
    """What TORCHBANDS_DEVICE names, else CUDA where there is one, else the CPU."""
    said = os.environ.get(VARIABLE, "").strip() or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(said)
    except RuntimeError:
        raise InputError(f"{VARIABLE} is {said!r}", hint="cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"{VARIABLE} is {said!r}, and torch finds no CUDA device")
        deterministic()
    return device


def deterministic() -> None:
    """Same seed, same weights on CUDA: for the whole process, from the first model that is put there. What has no
    deterministic kernel still runs, with torch's warning."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it picks kernels by their time, and so others in every process
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def without_cudnn() -> Iterator[None]:
    """torch's own kernels. cuDNN's recurrent layers have no gradient in eval mode, and no second one in any."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def differentiable(module: nn.Module, *, recurrent: bool) -> AbstractContextManager[None]:
    """Around a forward pass: a module with recurrent layers in eval mode is run so that its gradients exist."""
    needed = recurrent and torch.is_grad_enabled() and not module.training
    return without_cudnn() if needed else nullcontext()
