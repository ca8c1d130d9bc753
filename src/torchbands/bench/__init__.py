"""The benchmark engine: a grid of cells, each a pure function of its JSON spec, computed once and stored.

Truth is one small JSON file per cell. Running the same command again is the resume.
"""

from .cells import assess, judge
from .grid import Grid, load_grid, presets
from .run import Summary, run, status

__all__ = ["Grid", "Summary", "assess", "judge", "load_grid", "presets", "run", "status"]
