"""The results as JSON."""

from __future__ import annotations

import dataclasses

from torchbands.core.words import json_text

from .results import Results


def render(results: Results) -> str:
    """Results as JSON text; fractions stay fractions, and a metric without a value is absent with its reason beside."""
    return json_text(dataclasses.asdict(results), allow_nan=False) + "\n"
