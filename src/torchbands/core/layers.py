"""Access to the inside of a network by layer type: scalable units, the linear head, the token embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CHANNEL_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
#: Layers whose output counts channels on its second axis.
CHANNELS_FIRST = (*_CONV, *_CHANNEL_NORM)


class Gate(NamedTuple):
    """Scale and shift of a layer's output units, (units,) each; None leaves them unchanged."""

    scale: Tensor | None = None
    shift: Tensor | None = None


class Split(NamedTuple):
    """A model in two parts: body(raw batch) -> hidden, head(hidden) -> logits."""

    body: Callable[[Any], Tensor]
    head: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Unit:
    """A layer whose output units can be scaled.

    Attributes:
        layer: path of the module.
        kind: "conv", "linear", "norm" or "attention".
        count: how many units.
        dim: the axis of its output that counts units.
        follows: for a norm, the path of the conv or linear layer whose output it takes, if it takes one directly.
    """

    layer: str
    kind: str
    count: int
    dim: int
    follows: str | None = None


@dataclass(frozen=True)
class Trace:
    """Result of tracing one forward pass."""

    units: tuple[Unit, ...]
    head: str | None
    embedding: str | None


def kind_of(module: nn.Module) -> tuple[str, int, int] | None:
    """(kind, count, dim) of a module with scalable units, else None."""
    if isinstance(module, _CONV):
        return "conv", module.out_channels, 1
    if isinstance(module, nn.Linear):
        return "linear", module.out_features, -1
    if isinstance(module, _CHANNEL_NORM) and module.affine:
        count = module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features
        return "norm", count, 1
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1 and module.elementwise_affine:
        return "norm", module.normalized_shape[0], -1
    if isinstance(module, nn.MultiheadAttention):
        return "attention", module.embed_dim, -1
    return None


def trace(module: nn.Module, call: Callable[[], Tensor]) -> Trace:
    """Run `call` once and record the layers in the order they are used."""
    steps: list[tuple[str, nn.Module, Tensor | None, Tensor]] = []
    inside_attention = {
        f"{name}.{child}"
        for name, m in module.named_modules()
        if isinstance(m, nn.MultiheadAttention)
        for child, _ in m.named_modules()
        if child
    }

    def note(name: str) -> Callable[..., None]:
        def hook(m: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            first = args[0] if args and isinstance(args[0], Tensor) else None
            steps.append((name, m, first, out[0] if isinstance(out, tuple) else out))

        return hook

    handles = [
        m.register_forward_hook(note(name))
        for name, m in module.named_modules()
        if name not in inside_attention and (kind_of(m) or isinstance(m, nn.Embedding))
    ]
    try:
        with torch.no_grad():
            result = call()
    finally:
        for handle in handles:
            handle.remove()

    head = next((n for n, m, _, out in reversed(steps) if isinstance(m, nn.Linear) and out is result), None)
    if head is None:  # the logits may be a reshaped or cast view of the last linear layer's output
        linear = [(n, out) for n, m, _, out in steps if isinstance(m, nn.Linear)]
        if linear and linear[-1][1].shape == result.shape and torch.equal(linear[-1][1], result):
            head = linear[-1][0]
    embedding = next((n for n, m, _, _ in steps if isinstance(m, nn.Embedding)), None)
    units: list[Unit] = []
    made_by = {id(out): n for n, m, _, out in steps if isinstance(m, (*_CONV, nn.Linear))}
    seen: set[str] = set()
    for name, m, first, _ in steps:
        described = kind_of(m)
        if described is None or name == head or name in seen:
            continue
        seen.add(name)
        kind, count, dim = described
        units.append(Unit(name, kind, count, dim, made_by.get(id(first)) if kind == "norm" else None))
    return Trace(tuple(units), head, embedding)


def gate_hook(gate: Gate, dim: int) -> Callable[..., Any]:
    """A forward hook that scales and shifts output units along `dim`."""

    def hook(_: nn.Module, args: Any, out: Any) -> Any:
        h = out[0] if isinstance(out, tuple) else out
        shape = [1] * h.ndim
        shape[dim] = -1
        if gate.scale is not None:
            h = h * gate.scale.view(shape).to(h)
        if gate.shift is not None:
            h = h + gate.shift.view(shape).to(h)
        return (h, *out[1:]) if isinstance(out, tuple) else h

    return hook
