"""Made-up results of scans for the tests of reports and of the command line. The numbers are invented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from torchbands.modalities.image import Image
from torchbands.scanner.alerts import Alert
from torchbands.scanner.outcome import Answer, LedgerLine, Outcome, Picture, Subject
from torchbands.scanner.verdict import Verdict

VERDICTS: tuple[Verdict, ...] = ("indicated", "unusual", "none", "inconclusive")
TRIGGER = Alert(
    "BD-TRG-01",
    "high",
    "a small change of the input turns class sneaker into bag; no reference model gives way so cheaply (p = 0.0244)",
    "bag",
    {"pixels": 9.2, "z": 11.3, "views": ["pairwise-inversion", "target-inversion"]},
)
RECIPE = Alert("BD-RCP-01", "low", "weights differ from those of the references (p = 0.0244)", "weights")
BROKEN = Alert("BD-FILE-02", "medium", "the header promises 9 GB, the file has 12 kB", "model.safetensors")


def outcome(verdict: Verdict, **more: Any) -> Outcome:
    """A model scan with every part filled."""
    alerts = {"indicated": (TRIGGER, RECIPE), "unusual": (RECIPE,)}.get(verdict, ())
    reasons = ("only 12 reference models: alpha 0.05 needs 19",) if verdict == "inconclusive" else ()
    found, apart = verdict == "indicated", bool(alerts)
    made = Outcome(
        subject=Subject(
            "model",
            "models/shoes net.safetensors",
            "9f" * 32,
            "safetensors",
            {"parameters": 23_146, "classes": 10, "tensors": ["features.0.weight", "head.weight"]},
        ),
        alerts=alerts,
        trigger=Answer(None, reason=reasons[0]) if reasons else Answer(1 / 41 if found else 0.512, 11.3, 40),
        recipe=Answer(1 / 41 if apart else 0.317, 4.2, 40),
        ledger=ledger(found),
        source="sneaker" if found else None,
        target="bag" if found else None,
        pictures=pictures() if found else (),
        sizes=sizes(found),
        methods=("pairwise-inversion", "target-inversion", "input-margin"),
        not_covered=("triggers that need more than one input", "attacks that hide from every gradient search"),
        reasons=reasons,
        calibration={"n_refs": 40, "recipe": "small-cnn, sgd(epochs=5)", "folder": "refs"},
        cost={"seconds": 14.2, "forward_passes": 81_400.0, "clean_samples": 500.0, "peak_mb": 412.0},
        created="2026-01-02T03:04:05+00:00",
        version="0.1.0",
    )
    assert made.verdict == verdict
    return replace(made, **more)


def sizes(found: bool) -> dict[str, Any]:
    """Ten classes, of which one needs a smaller trigger than in any reference."""
    rng = torch.Generator().manual_seed(0)
    usual = (20 + 40 * torch.rand(10, 1, generator=rng)) * (0.8 + 0.4 * torch.rand(10, 40, generator=rng))
    mine = usual.mean(1)
    if found:
        mine[0] = 9.2
    names = ["bag", "boot", "coat", "dress", "pullover", "sandal", "shirt", "sneaker", "top", "trousers"]
    told = {"view": "target-inversion", "about": "size of the smallest patch", "classes": names, "left_out": 0}
    return told | {"suspect": mine.tolist(), "references": usual.sort(1).values.tolist()}


def ledger(found: bool) -> tuple[LedgerLine, ...]:
    """Five views: three that answer, one piece of evidence, one that declined."""
    ends = {"source": "sneaker", "target": "bag"} if found else {}
    z = 11.3 if found else 0.4
    return (
        LedgerLine("pairwise-inversion", "trigger", "fewest pixels per pair", 9.2, z, 0.024, **ends, seconds=8.1,
                   forward_passes=60_000),
        LedgerLine("target-inversion", "trigger", "smallest mask per class", 31.0, z + 30, 0.024, seconds=1.2),
        LedgerLine("weight-spectrum", "recipe", "singular values per layer", 2.2, -1.8, 0.3, seconds=0.1),
        LedgerLine("batchnorm-mismatch", "evidence", "running against fresh statistics", 0.03, 0.2, 0.6, seconds=0.1),
        LedgerLine("universal-perturbation", "trigger", "norm for 90 %", reason="needs gradients: this is a black box"),
    )  # fmt: skip


def pictures() -> tuple[Picture, ...]:
    """A square on noise, as the image modality draws it."""
    draw = Image(channels=1, size=16)
    x = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4
    y, mask = x.clone(), torch.zeros(1, 16, 16)
    y[:, 12:15, 12:15] = mask[:, 12:15, 12:15] = 1.0
    names = ("recovered trigger", "original: sneaker", "with the trigger: bag")
    return tuple(Picture(draw.render(row), name) for row, name in zip((mask, x, y), names))
