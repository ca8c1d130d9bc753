"""Small pictures as inline SVG."""

from __future__ import annotations

from html import escape

from .results import Histogram

_W, _H, _BASE = 220, 84, 66


def histogram(data: Histogram, title: str) -> str:
    """Histogram of suspicion scores: ordinary items as filled bars, suspicious ones as a bold outline."""
    bins = len(data.clean)
    clean, bad = _shares(data.clean), _shares(data.triggered)
    top = max([*clean, *bad, 1e-9])
    step = _W / bins
    bars = "".join(
        f'<rect x="{i * step + 0.5:.1f}" y="{_BASE - h:.1f}" width="{step - 1:.1f}" height="{h:.1f}"/>'
        for i, v in enumerate(clean)
        if (h := v / top * (_BASE - 6)) > 0.05
    )
    points = [f"M0 {_BASE}"]
    for i, v in enumerate(bad):
        y = _BASE - v / top * (_BASE - 6)
        points.append(f"L{i * step:.1f} {y:.1f} L{(i + 1) * step:.1f} {y:.1f}")
    outline = f'<path class="bad" d="{" ".join(points)} L{_W} {_BASE}"/>' if any(bad) else ""
    return (
        f'<svg class="hist" viewBox="0 0 {_W} {_H}" role="img" aria-label="{escape(title)}">'
        f'<g class="ok">{bars}</g>{outline}<path class="axis" d="M0 {_BASE}H{_W}"/>'
        f'<text x="0" y="{_H - 4}">{_edge(data.edges[0])}</text>'
        f'<text x="{_W}" y="{_H - 4}" text-anchor="end">{_edge(data.edges[-1])}</text></svg>'
    )


def _shares(counts: tuple[float, ...]) -> list[float]:
    total = sum(counts)
    return [c / total if total else 0.0 for c in counts]


def _edge(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
