"""Trigger templates for the black-box search."""

from __future__ import annotations

from typing import Any

from torchbands.core.errors import NotApplicable
from torchbands.core.modality import Modality
from torchbands.core.template import Template


def templates_for(modality: Modality, names: tuple[str, ...] = ()) -> list[Template[Any]]:
    """The templates of a modality, or those named. Raises NotApplicable where there is none."""
    chosen = [made for made in modality.templates() if not names or made.name in names]
    if not chosen:
        wanted = f" named {', '.join(names)}" if names else ""
        raise NotApplicable(f"there is no trigger template{wanted} for the modality {modality.name!r}")
    return chosen
