"""A network of any output as one that gives logits: pairs, tables, one logit, sigmoids; axes in another order; half."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchbands.core.errors import InputError
from torchbands.core.modality import Encoded, Layout, Modality
from torchbands.core.words import escaped
from torchbands.networks.layers import Normalize

from .opening.onnx_outputs import LOGITS, ONE_LOGIT, PROBABILITIES, SIGMOIDS, kind_of, table, telling

#: The least probability whose logarithm is taken.
_LEAST = 1e-7
#: Steps of automatic differentiation that only move numbers, and those whose result lies in (0, 1).
_MOVES = {"View", "UnsafeView", "Squeeze", "Unsqueeze", "Slice", "Select", "ReshapeAlias", "Clone", "ToCopy", "T"} | {
    *("Transpose", "Permute", "Expand", "Alias", "Split", "Index")
}
_SQUASHES = {"Sigmoid": "Sigmoid", "Hardsigmoid": "HardSigmoid"}


class Answers(nn.Module):
    """The network inside, answering (N, classes) logits.

    Args:
        at: which part of a pair or table holds the scores; None for a tensor. kind: what they are.
        layout: the order of axes in which rows go in, where it is not the usual one.
    """

    def __init__(self, network: nn.Module, at: str | int | None, kind: str, layout: Layout | None) -> None:
        super().__init__()
        self.network, self.at, self.kind, self.layout = network, at, kind, layout

    def forward(self, values: Tensor, *more: Any) -> Tensor:
        if self.layout is not None:
            values = values.permute(self.layout.axes)
        out = self.network(values, *more)
        part = out if self.at is None else _part(out, self.at)
        return logits(part.reshape(len(part), -1), self.kind)


def logits(scores: Tensor, kind: str) -> Tensor:
    """(N, classes) logits of (N, K) scores of a kind."""
    if kind == LOGITS:
        return scores
    if kind == PROBABILITIES:
        return scores.clamp_min(_LEAST).log()
    if kind == SIGMOIDS:
        return scores.clamp(_LEAST, 1 - _LEAST).logit()
    z = scores if kind == ONE_LOGIT else scores.clamp(_LEAST, 1 - _LEAST).logit()
    return torch.cat([-z / 2, z / 2], 1)


def answering(
    module: nn.Module, modality: Modality, e: Encoded, *, likely: int | None = None, output: str | None = None
) -> tuple[nn.Module, int, list[str]]:
    """The module as one that gives logits, its number of classes, and what was changed to that end.

    Args:
        e: a few encoded rows. likely: how many classes the rows have, to choose among several outputs.
        output: name or number of the part of the output that holds the classes.

    Raises InputError for a network without weights, one that does not take the rows, and one that is no classifier.
    """
    module = getattr(module, "_orig_mod", module)  # torch.compile: what it wraps computes the same
    module = module.module if isinstance(module, nn.DataParallel) else module
    tensors = [*module.parameters(), *module.buffers()]
    if any(t.is_meta for t in tensors):
        raise InputError("the network's weights are on no device (meta)", hint="load its weights first")
    notes = []
    if odd := {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}:
        module = copy.deepcopy(module).float()
        notes.append(f"its weights are {', '.join(sorted(str(d)[6:] for d in odd))}: it is computed in float32")
    before: Normalize | None = None
    if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[0], Normalize):
        before, inner = module[0], module[1]
        e = Encoded(before(e.values), e.mask)
    else:
        inner = module
    inner.eval()
    out, layout = _tried(inner, modality, e)
    at, scores = _scores(out, len(e.values), likely, output)
    kind = kind_of(scores.detach(), _operator(scores))
    if not kind:
        raise InputError(
            "the network gives one number between 0 and 1 for each row: a probability or a logit cannot be told",
            hint="give logits: leave out the sigmoid, or return torch.logit(p)",
        )
    classes = max(2, scores.shape[1])
    if layout is not None:
        notes.append(f"it reads {modality.plural} as {layout.label}: rows are turned for it")
    if at is not None:
        notes.append(f"of what it gives, {escaped(str(at))} is taken for the classes")
    if kind != LOGITS:
        notes.append(f"its output is read as {kind}")
    plain = at is None and kind == LOGITS and layout is None and isinstance(out, Tensor) and out.ndim == 2
    made = inner if plain else Answers(inner, at, kind, layout)
    if plain and before is not None:
        return module, classes, notes
    return (made if before is None else nn.Sequential(before, made)), classes, notes


def _tried(module: nn.Module, modality: Modality, e: Encoded) -> tuple[Any, Layout | None]:
    """What the module gives for the rows, and the order of axes it takes them in, where it is not the usual one."""
    try:
        return _called(module, modality, e), None
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
        for layout in modality.layouts[1:]:
            try:
                return _called(module, modality, Encoded(e.values.permute(layout.axes), e.mask)), layout
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError):
                pass
        first = escaped(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise InputError(f"the model does not take {modality.label()[:200]}: {first}") from None


def _called(module: nn.Module, modality: Modality, e: Encoded) -> Any:
    floats = e.values.is_floating_point()
    values = e.values.detach().requires_grad_() if floats else e.values
    with torch.enable_grad():  # what made the output is told by its gradient
        try:
            return modality.call(module, Encoded(values, e.mask))
        except RuntimeError:  # it may go through NumPy, or have been made in inference mode
            pass
    with torch.no_grad():
        return modality.call(module, e)


def _scores(out: Any, rows: int, likely: int | None, output: str | None) -> tuple[str | int | None, Tensor]:
    """Which part holds the scores (None: all of it), and the scores as (N, K)."""
    if isinstance(out, Tensor):
        found = table(out, rows)
        if found is None or found.shape[1] < 1:
            raise InputError(f"the model gives {tuple(out.shape)} for {rows} rows, expected logits ({rows}, classes)")
        return None, found
    parts = {key: found for key, value in _parts(out) if (found := table(value, rows)) is not None}
    shapes = ", ".join(f"{key}: ({rows}, {t.shape[1]})" for key, t in parts.items())
    if output is not None:
        chosen = next((key for key in parts if str(key) == output), None)
        if chosen is None:
            raise InputError(f"the model has no output {output!r}", hint=f"it has {shapes or 'no scores of the rows'}")
        return chosen, parts[chosen]
    for choose in (
        lambda key: key == "logits",
        lambda key: max(2, parts[key].shape[1]) == likely,
        lambda key: isinstance(key, str) and telling(key),
        lambda key: True,
    ):
        fitting = [key for key in parts if choose(key)]
        if len(fitting) == 1:
            return fitting[0], parts[fitting[0]]
    kind = type(out).__name__
    if not parts:
        raise InputError(f"the model gives {kind} without scores of the rows", hint="return (N, classes) logits")
    raise InputError(
        f"the model gives several outputs ({shapes}): which one holds the classes?",
        hint="--output NAME (or its number), or in Python wrap the network so that it returns the logits alone",
    )


def _parts(out: Any) -> list[tuple[str | int, Tensor]]:
    if isinstance(out, Mapping):
        pairs: Sequence[tuple[Any, Any]] = list(out.items())
    elif isinstance(out, (tuple, list)):
        pairs = list(enumerate(out))
    else:
        pairs = list(vars(out).items()) if hasattr(out, "__dict__") else []
    return [(key if isinstance(key, int) else str(key), value) for key, value in pairs if isinstance(value, Tensor)]


def _part(out: Any, at: str | int) -> Tensor:
    part: Tensor = getattr(out, str(at)) if not isinstance(out, (Mapping, tuple, list)) else out[at]  # type: ignore[index]
    return part


def _operator(scores: Tensor) -> str:
    """The operator that made the scores, as ONNX calls it: told by their gradient. "Add" for one without bounds."""
    at = scores.grad_fn
    for _ in range(50):
        if at is None:
            return ""
        name = at.name().removesuffix("Backward0").removesuffix("Backward1").removesuffix("Backward")
        if name in _SQUASHES:
            return _SQUASHES[name]
        if name not in _MOVES or not at.next_functions:
            return "Add"
        at = at.next_functions[0][0]
    return "Add"
