"""Every repair, and every model detector, on one public backdoored network that others made.

    python -m benchmarks.public_repairs NETWORK.pth [--only i-bau anp ...] [--only-write]

NETWORK.pth is `checkpoint/badnets_8_02_ckpt.pth` of github.com/YiZeng623/I-BAU (MIT; not part of this repository). The
defender has the first 5,000 CIFAR-10 test images, of which a repair gets as many as it declares; the other 5,000 judge.
Writes receipts/public-repairs.json and docs/public-repairs.md; what is in the receipt with the installed version of a
method is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from torchbands import datasets
from torchbands.bench.store import versions
from torchbands.core.data import Data
from torchbands.core.defense import ModelDetector, Repair
from torchbands.core.errors import BandsError, NotApplicable
from torchbands.core.model import Model
from torchbands.core.registry import build, listing
from torchbands.modalities.image import Image

from . import fresh
from .public_page import write_page

TARGET, ROWS, CLASSES = 8, 5000, 10
RECEIPT = Path("receipts/public-repairs.json")
#: The authors' notebook makes one round; all else runs as it is built.
SETTINGS: dict[str, dict[str, Any]] = {"i-bau": {"rounds": 1}}
#: Repairs whose outcome differs by the draw of rows as much as by the method: so many seeds, and the median is shown.
SEEDS = {"i-bau": 3}
#: Rows that a detector gets.
LOOK = 500


class SmallVGG(nn.Module):
    """Two 3x3 convolutions with BatchNorm and ELU a stage, then pooling and dropout; one Linear on the flat map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, dropped in ((32, 0.3), (64, 0.4), (128, 0.4)):
            for _ in range(2):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU()]
                inputs = width
            layers += [nn.MaxPool2d(2), nn.Dropout(dropped)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(128 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


@dataclass(frozen=True)
class Judge:
    """The rows that no defender sees, with and without the white square in the corner; the authors triggered the
    defender's own images, those of the target class too, so that number is told as well."""

    held_out: Data
    triggered: Tensor
    theirs: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Judge:
        return cls(Data(x[ROWS:], y[ROWS:]), _stamped(x[ROWS:][y[ROWS:] != TARGET]), _stamped(x[:ROWS]))

    def rates(self, model: Model) -> dict[str, float]:
        """Clean accuracy, attack success on other classes' rows, and success as the authors measure it."""
        right = model.logits(self.held_out.x).argmax(1) == self.held_out.y
        hits = [(model.logits(x).argmax(1) == TARGET) for x in (self.triggered, self.theirs)]
        ca, asr, theirs = (round(float(v.float().mean()), 4) for v in (right, *hits))
        return {"ca": ca, "asr": asr, "asr_all_rows": theirs}


def _stamped(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :, 27:31, 27:31] = 1.0
    return out


def read(path: Path) -> Model:
    """The public network; only tensors are read."""
    module = SmallVGG()
    module.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["net"])
    return Model.wrap(module, Image(channels=3, size=32), CLASSES)


def repaired(repair: Repair, model: Model, clean: Data, judge: Judge) -> dict[str, Any]:
    """One repair's row, of several seeds the median; a repair that does not apply is a row with its reason."""
    made: list[dict[str, float]] = []
    spent, waited, count = 0.0, 0.0, SEEDS.get(repair.name, 1)
    for seed in range(count):
        started, wall = time.process_time(), time.perf_counter()
        try:
            after = repair.repair(model, clean, seed=seed)
        except NotApplicable as declined:
            return {"declined": declined.reason}
        except BandsError as error:
            return {"failed": error.message}
        spent, waited = spent + time.process_time() - started, waited + time.perf_counter() - wall
        made.append(judge.rates(after))
        print(repair.name, seed, made[-1], file=sys.stderr, flush=True)
    middle = {name: round(median(one[name] for one in made), 4) for name in made[0]}
    cost = {"cpu_s": round(spent / count, 1), "wall_s": round(waited / count, 1)}
    return {**middle, **cost, **({"seeds": made} if count > 1 else {})}


def found(detector: ModelDetector, model: Model, clean: Data) -> dict[str, Any]:
    """One detector's verdict."""
    started = time.process_time()
    try:
        told = detector.inspect(model, clean, seed=0)
    except NotApplicable as declined:
        return {"declined": declined.reason}
    except BandsError as error:
        return {"failed": error.message}
    top = None if told.per_class is None else int(told.per_class.argmax())
    named = told.target if told.target is not None else top
    cost = {"cpu_s": round(time.process_time() - started, 1)}
    return {"score": round(float(told.score), 4), "flagged": told.flagged, "class": named, **cost}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, nargs="?", help="the checkpoint")
    parser.add_argument("--only", nargs="+", default=[], help="names of repairs and detectors (default: all)")
    parser.add_argument("--only-write", action="store_true", help="run nothing, write the page from the receipt")
    given = parser.parse_args()
    receipt = json.loads(RECEIPT.read_text()) if RECEIPT.is_file() else {"repairs": {}, "detectors": {}}
    if not given.only_write:
        if given.network is None:
            parser.error("name the checkpoint, or --only-write")
        _run(given.network, set(given.only), receipt)
    specs = [row["method"] for key in ("repairs", "detectors") for row in receipt[key].values()]
    made = {"methods": fresh.versions(*specs)}
    fresh.refuse_stale([(str(RECEIPT), made, "python -m benchmarks.public_repairs NETWORK.pth")])
    write_page(receipt)
    return 0


def _run(path: Path, only: set[str], receipt: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    x, y = datasets.load("cifar10", "test")
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    model, clean, judge = read(path), Data(x[:ROWS], y[:ROWS]), Judge.of(x, y)
    receipt |= {"network": hashlib.sha256(path.read_bytes()).hexdigest(), "versions": versions()}
    receipt["before"] = judge.rates(model)
    for role, key in (("repair", "repairs"), ("model-detector", "detectors")):
        for cls in listing(role):
            if only and cls.name not in only:
                continue
            made = build(cls.name, role).but(**SETTINGS.get(cls.name, {}))
            if receipt[key].get(made.name, {}).get("method") == made.spec():
                continue
            if isinstance(made, Repair):
                rows = clean[torch.arange(min(made.clean_needed(), ROWS))]
                row = {"rows": len(rows)} | repaired(made, model, rows, judge)
            else:
                assert isinstance(made, ModelDetector)
                row = found(made, model, clean.sample(LOOK, "look", 0))
            receipt[key][made.name] = {"method": made.spec(), **row}
            RECEIPT.write_text(json.dumps(receipt, indent=1, sort_keys=True) + "\n")
            print(made.name, row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
