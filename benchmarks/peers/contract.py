"""What the runners share: the clock, the quality measures, and the one JSON line that each prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.peers.exchange import WORK, Exchange, load


@dataclass
class Clock:
    """Seconds of the `with` block: of this process (all its threads) and by the wall. Imports stay outside."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    def __enter__(self) -> Clock:
        self._start = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_seconds = time.process_time() - self._start[0]
        self.wall_seconds = time.perf_counter() - self._start[1]


@dataclass
class Measured:
    """One timed piece of work. Quality values are numbers, lists of numbers, booleans or null."""

    cpu_seconds: float
    wall_seconds: float
    quality: dict[str, Any]

    @classmethod
    def of(cls, clock: Clock, quality: Mapping[str, Any]) -> Measured:
        return cls(clock.cpu_seconds, clock.wall_seconds, dict(quality))


class NotMeasurable(Exception):
    """The tool cannot do this work; the message says exactly why."""


@dataclass
class Result:
    """The JSON line of a runner. `variants` are the same work under other settings."""

    tool: str
    version: str
    work: str
    status: str = "measured"
    reason: str | None = None
    threads: int = 1
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Work = Callable[[Exchange, dict[str, Any], bool], tuple[Measured, dict[str, Measured]]]


def main(tool: str, version: str, works: Mapping[str, Work], notes: Mapping[str, list[str]]) -> None:
    """Run one work of one tool and print its line; whatever the tool itself prints goes to stderr."""
    parser = argparse.ArgumentParser(description=f"measure {tool}")
    parser.add_argument("exchange", type=Path)
    parser.add_argument("work", choices=sorted(WORK["works"]))
    parser.add_argument("--no-variants", action="store_true", help="only the stated work, not its variants")
    given = parser.parse_args()
    torch.set_num_threads(WORK["threads"])
    threadpool_limits(WORK["threads"])
    torch.manual_seed(WORK["seed"])
    np.random.seed(WORK["seed"])
    result = Result(tool, version, given.work, threads=torch.get_num_threads(), notes=notes.get(given.work, []))
    try:
        if given.work not in works:
            raise NotMeasurable("the tool does not offer it")
        exchange = load(given.exchange)
        with contextlib.redirect_stdout(sys.stderr):
            exchange.network(exchange.floats("test_images", slice(0, 64)))  # warm the convolutions up
            work, settings = works[given.work], WORK["works"][given.work]
            measured, variants = work(exchange, settings, not given.no_variants)
        result.cpu_seconds, result.wall_seconds = measured.cpu_seconds, measured.wall_seconds
        result.quality = measured.quality
        result.variants = {name: asdict(variant) for name, variant in variants.items()}
    except NotMeasurable as error:
        result.status, result.reason = "not measurable", str(error)
    print(json.dumps(asdict(result)))


def auroc(truth: Any, scores: Any) -> float | None:
    """Area under the ROC curve; null where it is undefined (one class only, or a score that is not a number)."""
    truth, scores = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=float)
    if truth.all() or not truth.any() or not np.isfinite(scores).all():
        return None
    return float(roc_auc_score(truth, scores))


def row_quality(truth: Any, labels: Any, target: int, *, flagged: Any = None, scores: Any = None) -> dict[str, Any]:
    """Quality of a data filter over rows: AUROC over all rows and within the target class, and its own decision.

    A filter that only flags has the AUROC of its 0/1 decision, which is its balanced accuracy.
    """
    truth, labels = np.asarray(truth, dtype=bool), np.asarray(labels)
    quality: dict[str, Any] = {}
    if flagged is not None:
        flagged = np.asarray(flagged, dtype=bool)
        quality |= {
            "flagged": int(flagged.sum()),
            "true_positive_rate": float(flagged[truth].mean()),
            "false_positive_rate": float(flagged[~truth].mean()),
        }
    values = flagged if scores is None else np.asarray(scores, dtype=float)
    inside = labels == target
    return {
        "auroc": auroc(truth, values),
        "auroc_target_class": auroc(truth[inside], values[inside]),
        "auroc_of": "flags" if scores is None else "scores",
        **quality,
    }


def trigger_quality(norms: Any, target: int, success: Any) -> dict[str, Any]:
    """Quality of trigger inversion: mask L1 norm per class, the target's rank (1 = smallest) and its anomaly index.

    The anomaly index is (median - norm) / (1.4826 MAD), positive for small masks; the paper's rule flags values over 2.
    """
    norms = np.asarray(norms, dtype=float)
    deviation = 1.4826 * np.median(np.abs(norms - np.median(norms)))
    index = (np.median(norms) - norms) / max(deviation, 1e-12)
    return {
        "target_rank": int((norms < norms[target]).sum()) + 1,
        "target_found": bool(norms.argmin() == target and index[target] > 2),
        "anomaly_index": float(index[target]),
        "flagged": [int(c) for c in np.flatnonzero(index > 2)],
        "mask_norms": [round(float(n), 3) for n in norms],
        "trigger_success": [round(float(s), 3) for s in success],
    }
