"""The results as JSON."""

from __future__ import annotations

import dataclasses
import json

from .results import Results


def render(results: Results) -> str:
    """Results as JSON text; fractions stay fractions, and a metric without a value is absent with its reason beside."""
    return json.dumps(dataclasses.asdict(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
