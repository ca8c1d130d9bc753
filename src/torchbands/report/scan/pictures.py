"""Small drawings for the page, as inline SVG: where a p-value lies, and how far a view is from the references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from markupsafe import Markup

from torchbands.scanner.outcome import Answer

from .formatting import number

_W = 220
#: Distances beyond this many standard units are drawn at the edge.
FAR = 12.0


def scale_of(answer: Answer, alpha: float) -> Markup:
    """A p-value on a logarithmic scale from its smallest possible value to 1, with alpha marked."""
    low = math.log10(min(answer.smallest, alpha) / 1.6)

    def at(p: float) -> float:
        return round(_W * (1 - math.log10(max(p, 10**low)) / low), 1)

    said = f"p {number(answer.p)} on a scale from {number(answer.smallest)} to 1; alpha {number(alpha)}"
    a = at(alpha)
    dot = (
        f'<circle class="dot" cx="{min(max(at(answer.p), 5), _W - 5)}" cy="14" r="6"/>' if answer.p is not None else ""
    )
    return Markup(
        f'<svg class="scale" viewBox="0 0 {_W} 40" role="img" aria-label="{escape(said)}">'
        f'<rect class="hot" x="0" y="10" width="{a}" height="8" rx="2"/>'
        f'<rect class="cold" x="{a}" y="10" width="{_W - a:.1f}" height="8" rx="2"/>'
        f'<path class="tick" d="M{a} 4V24"/>{dot}'
        f'<text x="{min(max(a, 22), _W - 40)}" y="37" text-anchor="middle">alpha {number(alpha)}</text>'
        f'<text x="{_W}" y="37" text-anchor="end">1</text></svg>'
    )


def dots_of(sizes: Mapping[str, Any], at: int) -> Markup:
    """One class's trigger size beside the references', on the logarithmic scale that all classes share: references are
    dots, the suspect is a diamond. Places are in per cent of the width, so that it fits any screen."""
    every = [s for s in sizes["suspect"] if s is not None] + [s for row in sizes["references"] for s in row]
    logs = [math.log(max(s, 1e-12)) for s in every]
    low, span = (min(logs), max(max(logs) - min(logs), 1e-9)) if logs else (0.0, 1.0)

    def place(size: float) -> str:
        return f"{2 + 96 * (math.log(max(size, 1e-12)) - low) / span:.2f}%"

    mine, theirs = sizes["suspect"][at], sizes["references"][at]
    said = f"this model {number(mine)}" if mine is not None else "this model: no trigger was found"
    if theirs:
        said += f"; references {number(min(theirs))} to {number(max(theirs))}"
    less = mine is not None and bool(theirs) and mine < min(theirs)
    dots = "".join(f'<circle class="ref" cx="{place(s)}" cy="11" r="3.2"/>' for s in theirs)
    shape = "" if mine is None else f'<path class="{"less" if less else "mine"}" d="M0-7L6 0L0 7L-6 0z"/>'
    mark = "" if mine is None else f'<svg x="{place(mine)}" y="11" overflow="visible">{shape}</svg>'
    return Markup(
        f'<svg class="dots" height="22" role="img" aria-label="{escape(said)}">'
        f'<line class="grid" x1="0" x2="100%" y1="11" y2="11"/>{dots}{mark}</svg>'
    )


def bar_of(z: float) -> Markup:
    """A distance in the references' standard units: right of the middle is more suspicious."""
    if not math.isfinite(z):
        return Markup("")
    middle = 60.0
    length = min(abs(z), FAR) / FAR * (_W - middle if z > 0 else middle)
    x = middle if z > 0 else middle - length
    strength = "far" if z >= 3 else "near"
    over = f'<path class="over" d="M{_W - 7} 3l5 5l-5 5"/>' if z > FAR else ""
    return Markup(
        f'<svg class="zbar" viewBox="0 0 {_W} 16" role="img" aria-label="{number(z, 2)} standard units">'
        f'<path class="grid" d="M{middle} 0V16M{middle + 3 / FAR * (_W - middle):.0f} 0V16"/>'
        f'<rect class="{strength}" x="{x:.1f}" y="4" width="{max(length, 1.5):.1f}" height="8" rx="2"/>{over}</svg>'
    )
