"""Estimates the time of every view in advance: one timed step of the model times the number of steps."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from torchbands.core.budget import in_parts, longest, undisturbed
from torchbands.core.data import Data, take
from torchbands.core.defense import ModelDetector, Work
from torchbands.core.errors import BandsError, NotApplicable
from torchbands.core.modality import Encoded
from torchbands.core.model import Model
from torchbands.core.words import in_about, in_words

#: Rows of the timed step, at most, and seconds under which it is done once more, warm.
ROWS, SHORT = 64, 0.2


def forecast(model: Model, clean: Data, detectors: Sequence[ModelDetector]) -> list[float | None]:
    """Seconds that each detector takes, about; None where it does not apply or asks nothing of the model."""
    works = [_work(model, clean, detector) for detector in detectors]
    forward = pace(model, clean, gradients=False) if any(w.forward for w in works) else 0.0
    back = pace(model, clean, gradients=True) if any(w.back for w in works) else 0.0
    return [w.forward * forward + w.back * back if any(w) else None for w in works]


def pace(model: Model, clean: Data, *, gradients: bool) -> float:
    """Seconds a row: of one step of clean rows, or of noise where there are none. The passes are nobody's."""
    rows = min(ROWS, model.gradient_chunk if gradients else model.chunk, max(1, len(clean)) if len(clean) else ROWS)
    passes, taken = model.passes.forward, 0.0
    try:
        for _ in range(2):
            started = time.perf_counter()
            in_parts(model, rows, lambda part: _step(model, clean, len(part), gradients), gradients=gradients)
            taken = time.perf_counter() - started
            if taken > SHORT:
                break
    finally:
        model.passes.forward = passes
    return taken / rows


def _step(model: Model, clean: Data, rows: int, gradients: bool) -> None:
    if "weights" not in model.capabilities:
        some = torch.arange(rows)
        model.logits(take(clean.x, some) if len(clean) else model.modality.random(rows, torch.Generator()))
        return
    with undisturbed(model.module), torch.set_grad_enabled(gradients):
        e = model.embed(take(clean.x, torch.arange(rows))).trimmed() if len(clean) else longest(model, rows)
        values = e.values.detach().float().requires_grad_(gradients)
        total = model.logits_at(Encoded(values, e.mask, e.tokens)).sum()
        if gradients:
            torch.autograd.grad(total, values)
        float(total.detach())  # waits for the device


def _work(model: Model, clean: Data, detector: ModelDetector) -> Work:
    try:
        return detector.work(model, min(detector.clean_needed(), len(clean)))
    except (BandsError, NotApplicable):
        return Work()


def announced(names: Sequence[str], seconds: Sequence[float | None]) -> str:
    """One sentence for a reader who waits."""
    known = [(name, s) for name, s in zip(names, seconds, strict=True) if s is not None]
    each = ", ".join(f"{name} {in_words(s)}" for name, s in known)
    return f"looking will take {in_about(sum(s for _, s in known))}: {each}" if known else ""
