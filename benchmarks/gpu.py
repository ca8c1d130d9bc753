"""PreActResNet-18 on CIFAR-10 on a CUDA device: the public leaderboard's recipe and a fast one, then every defense.

    python benchmarks/gpu.py --store gpu-store [--attacks badnets,blended] [--recipes fast] [--seeds 1] [--no-defenses]

Prints and writes receipts/gpu.json: seconds per training, CA/ASR/RA beside the published row, and every defense's
CA/ASR/DER with its seconds. Rerunning resumes. Without a CUDA device it says so and stops.

Where the leaderboard's recipe is not followed to the letter: the 5 % that defenders get are held out of training, crops
reflect the border instead of padding with zeros, training is in bfloat16, and attacks have this toolkit's own settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

#: CA / ASR / RA per cent, BackdoorBench leaderboard (Wu et al., NeurIPS 2022), CIFAR-10, PreActResNet-18, rate 10 %.
PUBLISHED = {
    "badnets": (91.3, 95.0, 4.7),
    "blended": (93.5, 99.9, 0.1),
    "wanet": (91.3, 89.7, 9.8),
    "input-aware": (90.7, 98.3, 1.7),
}
DEFENSES = [
    *("strip", "scale-up", "badexpert"),
    *("neural-cleanse", "mm-bd", "model-detector/channel-lipschitz"),
    *("spectral-signatures", "activation-clustering", "statistical-contamination"),
    *("fine-tune", "fine-pruning", "anp", "i-bau", "ft-sam", "repair/channel-lipschitz"),
]


def task(recipe: str) -> dict[str, Any]:
    """The task spec of a recipe."""
    common = {"batch": 128, "weight_decay": 5e-4, "augment": "crop-flip", "pad": 4}
    learner = {
        "leaderboard": {**common, "epochs": 100, "lr": 0.01, "schedule": "cosine", "nesterov": False, "decay": "all"},
        "fast": {**common, "epochs": 24, "batch": 512, "lr": 0.4, "schedule": "one-cycle", "warm_up": 0.2},
    }[recipe]
    return {
        "name": "vision/cifar10",
        "held_out": 0.05,
        "network": {"name": "preact-resnet18", "role": "network"},
        "learner": {"name": "sgd", "role": "learner", **learner},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("gpu-store"))
    parser.add_argument("--recipes", default="fast,leaderboard")
    parser.add_argument("--attacks", default=",".join(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-defenses", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("receipts/gpu.json"))
    args = parser.parse_args()

    import torch

    if not torch.cuda.is_available():
        print("No CUDA device was found; this benchmark measures one and stops here.", file=sys.stderr)
        return 3

    from torchbands import bench
    from torchbands.bench.store import Store, versions

    results = []
    for recipe in args.recipes.split(","):
        grid = {
            "question": f"PreActResNet-18 on CIFAR-10, {recipe} recipe",
            "tasks": [task(recipe)],
            "attacks": [{"name": name, "rate": 0.1} for name in args.attacks.split(",")],
            "defenses": [] if args.no_defenses else DEFENSES,
            "seeds": list(range(args.seeds)),
        }
        folder = args.store / recipe
        bench.run(grid, folder, progress=lambda a, b, what, _: print(f"[{a}/{b}] {what}", file=sys.stderr))
        store = Store(folder)
        for victim in store.asked("outcomes"):
            row = {k: victim.get(k) for k in ("attack", "seed", "status", "reason", "metrics", "cost")}
            results.append({"recipe": recipe, **row, "published": PUBLISHED.get(victim["attack"])})
        for record in store.asked("records"):
            keys = ("attack", "seed", "defense", "role", "status", "reason", "metrics", "cost")
            results.append({"recipe": recipe, **{k: record.get(k) for k in keys}})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"versions": versions(), "results": results}, indent=1) + "\n")
    for row in results:
        if "defense" not in row and row["metrics"]:
            m, p = row["metrics"], row["published"]
            shown = " / ".join("-" if m[k] is None else f"{100 * m[k]:.1f}" for k in ("ca", "asr", "ra"))
            print(f"{row['recipe']:12} {row['attack']:12} CA/ASR/RA {shown}  published {p}  {row['cost']['seconds']} s")
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
