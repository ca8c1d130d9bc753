"""Peak resident memory of every view of a scan and of every filter, each in a process of its own.

    python -m benchmarks.memory [--seconds 20] [--only NAME,...] [--out receipts/memory.json]

Subjects: a network of the size of ResNet-50 at 224 px with 1,000 classes; an encoder of the size of BERT-base with 512
positions and 4 classes; 1,000,000 rows of 512 features; 1,000,000 texts of 20 words. Their weights are random, which
takes as much memory as any. A view tells its time first; what has not ended after --seconds of CPU is stopped, and the
receipt says so: its memory is then that of its first steps, of which all others are copies.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

#: What no process may take, in GB.
BAR = 6.0
MILLION = 1_000_000
FILTERS = (
    *("activation-clustering", "spectral-signatures", "statistical-contamination", "cube", "cross-split", "meta-sift"),
)
TOKEN_FILTERS = ("z-score", "bki")


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        plain = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if plain
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """25.6 million weights: He et al., CVPR 2016, table 1."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(3, 2, 1))
        inputs = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(blocks):
                layers.append(Bottleneck(inputs, width, stride if i == 0 else 1))
                inputs = 4 * width
        self.body, self.head = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).mean((2, 3)))
        return out


class Encoder(nn.Module):
    """The size of BERT-base: 12 layers of width 768 with 12 heads, about 110 million weights."""

    def __init__(self, tokens: int, classes: int, length: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(vocab_size=tokens, max_position_embeddings=length), add_pooling_layer=False)
        self.head = nn.Linear(768, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.head(self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state[:, 0])
        return out


class Bag(nn.Module):
    """The mean of embeddings, 512 features, a head: texts cost next to nothing."""

    def __init__(self, tokens: int, classes: int) -> None:
        super().__init__()
        self.embedding, self.wide, self.head = nn.Embedding(tokens, 8), nn.Linear(8, 512), nn.Linear(512, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        mean = (self.embedding(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        out: Tensor = self.head(torch.relu(self.wide(mean)))
        return out


def words(count: int) -> tuple[str, ...]:
    return tuple(f"w{i:x}" for i in range(count))


def texts(count: int, vocabulary: tuple[str, ...], length: int) -> list[str]:
    drawn = torch.randint(len(vocabulary), (count, length), generator=torch.Generator().manual_seed(1))
    return [" ".join(vocabulary[i] for i in row) for row in drawn.tolist()]


def subject(name: str) -> tuple[Any, Any]:
    """(model, rows) of a subject."""
    from torchbands.core.data import Data
    from torchbands.core.model import Model
    from torchbands.modalities.image import Image
    from torchbands.modalities.observation import Observation
    from torchbands.modalities.text import Text

    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    if name.startswith("resnet50"):
        x, y = torch.rand(1000, 3, 224, 224, generator=rng), torch.arange(1000)
        return Model(ResNet50(1000), Image(channels=3, size=224), 1000), Data(x, y)
    if name == "bert-base":
        modality = Text(vocabulary=words(30_000), length=512, inserted=2)
        rows = texts(500, modality.vocabulary, 512)
        return Model(Encoder(modality.token_count, 4, 512), modality, 4), Data(rows, torch.arange(500) % 4)
    y = torch.randint(10, (MILLION,), generator=rng)
    if name == "features":
        x = 4 * torch.randn(10, 8, generator=rng)[y] + torch.randn(MILLION, 8, generator=rng)
        net = nn.Sequential(nn.Linear(8, 512), nn.ReLU(), nn.Linear(512, 10))
        return Model(net, Observation(shape=(8,)), 10), Data(x, y)
    modality = Text(vocabulary=words(2000), length=20)
    return Model(Bag(modality.token_count, 10), modality, 10), Data(texts(MILLION, modality.vocabulary, 20), y)


@dataclass(frozen=True)
class Case:
    """One thing measured: a method on a subject."""

    subject: str
    method: str

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.method}"


def cases() -> list[Case]:
    from torchbands.scanner.views import PROFILES

    images = [v.name for v in PROFILES["full"] if v.tokens is not True]
    text = [v.name for v in PROFILES["full"] if v.tokens is not False and v.name != "batchnorm-mismatch"]
    return [
        *(Case("resnet50-224px-1000-classes", name) for name in images),
        *(Case("bert-base", name) for name in text),
        *(Case("features", name) for name in FILTERS),
        *(Case("texts", name) for name in TOKEN_FILTERS),
        Case("pool-of-21-models", "1000x1000-cells"),
    ]


class TimeUp(Exception):
    """The CPU seconds of a case are spent."""


def peak() -> float:
    """Most resident memory of this process so far, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / (1 << 20)


def child(case: Case, seconds: float) -> dict[str, Any]:
    """Measure one case in this process."""
    torch.set_num_threads(1)
    if case.subject.startswith("pool"):
        from torchbands.scanner.calibrate import Kind, compare

        pool = torch.randn(21, 1000, 1000)
        begun, before = time.process_time(), peak()
        compare({"pairs": pool}, {"pairs": Kind(reduce="either")})
        return _told(begun, before, True, None, 0, None)
    from torchbands.scanner.forecast import forecast, in_words
    from torchbands.scanner.views import PROFILES

    model, rows = subject(case.subject)
    views = {v.name: v.detector for v in PROFILES["full"]}
    expected, chunks = None, None
    if case.method in views:
        needed = views[case.method].clean_needed()
        rows = rows[torch.arange(min(needed, len(rows)))]
        (expected,) = forecast(model, rows, [views[case.method]])
        print(f"{case.name}: about {'no time' if expected is None else in_words(expected)}", file=sys.stderr)
        chunks = {"forward": model.chunk, "with gradients": model.gradient_chunk}
    before, begun, passes = peak(), time.process_time(), model.passes.forward

    def stop(*_: object) -> None:
        raise TimeUp

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        _run(case, views, model, rows)
        ended = True
    except TimeUp:
        ended = False
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return _told(begun, before, ended, expected, model.passes.forward - passes, chunks)


def _run(case: Case, views: dict[str, Any], model: Any, rows: Any) -> None:
    from torchbands.core.registry import build

    if case.method in views:
        views[case.method].inspect(model, rows, seed=0)
        return
    from torchbands.core.defense import DataFilter

    made = build(case.method, role="data-filter")
    assert isinstance(made, DataFilter)
    clean = rows[torch.arange(made.clean_needed())] if made.clean_needed() else None
    made.score(rows.blind(), model, clean=clean, seed=0)


def _told(
    begun: float, before: float, ended: bool, expected: float | None, passes: int, chunks: dict[str, int] | None
) -> dict[str, Any]:
    return {
        "peak_gb": round(peak(), 2),
        "before_gb": round(before, 2),
        "ended": ended,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "forecast_seconds": None if expected is None else round(expected, 1),
        "forward_passes": passes,
        "rows_at_once": chunks,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds of a view (a filter: six times)")
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("receipts/memory.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    every = {case.name: case for case in cases()}
    if args.child:
        case = every[args.child]
        longer = 6 if case.subject in ("features", "texts") else 1
        print(json.dumps(child(case, longer * args.seconds)))
        return 0
    wanted = [name for name in every if not args.only or any(part in name for part in args.only.split(","))]
    told = json.loads(args.out.read_text())["cases"] if args.out.exists() else {}
    for name in wanted:
        command = [sys.executable, "-m", "benchmarks.memory", "--child", name, "--seconds", str(args.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        told[name] = json.loads(done.stdout) if done.returncode == 0 else {"failed": said}
        print(name, json.dumps(told[name]), flush=True)
        peaks = [case["peak_gb"] for case in told.values() if "peak_gb" in case]
        facts = {"torch": torch.__version__, "threads": 1, "bar_gb": BAR, "largest_gb": max(peaks, default=None)}
        ordered = {name: told[name] for name in every if name in told}
        args.out.write_text(json.dumps({**facts, "cases": ordered}, indent=1) + "\n")
    return int(any("failed" in case or case["peak_gb"] > BAR for case in told.values()))


if __name__ == "__main__":
    sys.exit(main())
