"""Do the scores of a whole batch of inputs lie above those of clean rows? An exact test, whatever the scores measure.

If the inputs are exchangeable with the n clean rows, every order of all n + m scores is as likely as any other. So the
number of inputs above the j-th highest clean score has a known distribution, and so has the smallest of those chances
over several j. A p-value per input cannot be below 1/(n + 1), however many inputs lie above all clean rows; this can.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Clean scores up to this rank, from the highest, are compared with: every power of two.
DEEPEST = 1024


def batch_p(p: Tensor, clean: int) -> float:
    """The chance that a batch of ordinary inputs has so many high scores at any depth.

    Args:
        p: (m,) conformal p-values of the inputs. clean: the number n of clean rows that gave them.
    """
    if len(p) == 0:
        return 1.0
    rank = (p * (clean + 1)).round().long()  # one more than the clean rows that score as high or higher
    found = 1.0
    for j in depths(clean):
        found = min(found, float(tails(j, clean, len(p))[int((rank <= j).sum())]))
    return corrected(found, clean, len(p))


def fewest(clean: int, inputs: int, level: float) -> int | None:
    """How many of a batch must lie above all clean rows, at least, to be noticed at a level; None: all are too few."""
    chances = tails(1, clean, inputs)
    low, high = 0, inputs + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if corrected(float(chances[middle]), clean, inputs) <= level * (1 + 1e-9) else (middle, high)
        )
    return high if high <= inputs else None


def clean_to_name_one(inputs: int, level: float) -> int:
    """Clean rows that must calibrate so that false discovery control can name one input in a batch."""
    return math.ceil(inputs / level - 1 - 1e-9)


def depths(clean: int) -> list[int]:
    """The ranks that are compared: 1, 2, 4, ..., at most half of the clean rows."""
    most = max(1, min(clean // 2, DEEPEST))
    return [2**i for i in range(most.bit_length())]


@lru_cache(maxsize=64)
def tails(j: int, clean: int, inputs: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(m + 1,) chance that k or more inputs lie above the j-th highest clean score, for k of 0 to m."""
    k = np.arange(inputs + 1)
    ways = _choose(j - 1 + k, k) + _choose(clean - j + inputs - k, inputs - k)
    exactly = np.exp(ways - _choose(np.array(clean + inputs), np.array(clean)))
    some: np.ndarray[tuple[int], np.dtype[np.float64]] = exactly[::-1].cumsum()[::-1].clip(max=1.0)
    return some


@lru_cache(maxsize=256)
def corrected(smallest: float, clean: int, inputs: int) -> float:
    """The chance that the smallest tail over all depths is at most `smallest`: one minus the share of orders that stay
    above it at every depth.

    Orders are counted as paths: how many inputs lie above the clean scores passed so far. They are weighed as if each
    next score were an input's with one fixed chance, so that no number grows out of range.
    """
    from scipy.signal import lfilter

    if smallest >= 1 - 1e-6:
        return 1.0
    limit = {j: int((tails(j, clean, inputs) > smallest * (1 + 1e-9)).sum()) for j in depths(clean)}
    last, chance = max(limit), inputs / (clean + inputs)
    paths = np.zeros(max(limit.values()))
    paths[0] = 1.0
    for j in range(1, last + 1):
        paths = lfilter([1 - chance], [1, -chance], paths)
        if j in limit:
            paths[limit[j] :] = 0.0
    k = np.arange(len(paths))
    weight = _choose(clean - last + inputs - k, inputs - k) - _choose(np.array(clean + inputs), np.array(clean))
    weight -= k * math.log(chance) + last * math.log1p(-chance)
    return max(1.0 - float((paths * np.exp(weight)).sum()), smallest)


def _choose(n: np.ndarray[Any, Any], k: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logarithm of n over k."""
    from scipy.special import gammaln

    found: np.ndarray[Any, Any] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def sees_nothing(scores: Tensor, clean: Tensor) -> bool:
    """Whether the detector gives all of them one score."""
    return bool(torch.cat([scores, clean]).unique().numel() == 1)
