"""The recovered trigger at work on clean rows, in pictures and in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchbands.core.data import Data, take
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng

from .highlight import marked
from .outcome import Picture
from .strongest import Strongest


@dataclass(frozen=True)
class Shown:
    pictures: tuple[Picture, ...]
    facts: Mapping[str, Any]


def show(model: Model, clean: Data, found: Strongest, names: Sequence[str]) -> Shown:
    """The recovered trigger on clean rows, and how many of them it moves to the target."""
    if found.trigger is None or found.target is None:
        return Shown((), {})
    rows = (clean.y == found.source if found.source is not None else clean.y != found.target).nonzero().flatten()
    if len(rows) == 0:
        return Shown((), {})
    rows = rows[:: max(1, len(rows) // 200)][:200]
    before = take(clean.x, rows)
    after = found.trigger(before, RowRng(0, rows))
    already = model.logits(before).argmax(1) == found.target
    was = float(already.float().mean())
    said = model.logits(after).argmax(1)
    success = float((said == found.target).float().mean())
    moved = (
        ((said == found.target) & ~already).nonzero().flatten()
    )  # a picture of the trigger at work, where it works on any
    at = int(moved[0]) if len(moved) else 0
    first, words = int(clean.y[rows[at]]), tuple(map(str, getattr(found.trigger, "words", ())))
    contrast = model.modality.contrast(before[at : at + 1], after[at : at + 1])
    pictures = [
        Picture(model.modality.render(before[at]), f"a clean row of class {names[first]}"),
        Picture(
            marked(model.modality.render(after[at]), words),
            f"with the recovered trigger: read as {names[int(said[at])]}",
        ),
    ]
    if contrast is not None:
        pictures.append(Picture(model.modality.render(contrast[0]), "the difference, stretched"))
    facts: dict[str, Any] = {"trigger_success": round(success, 4), "without_trigger": round(was, 4), "rows": len(rows)}
    if words:
        facts["words"] = " ".join(words)
    return Shown(tuple(pictures), facts)
