"""Backdoored MiniLM encoders under heads that were trained on clean data, and decree on clean and backdoored encoders.

    python -m benchmarks.text.encoders [--sets sst2,rotten-tomatoes] [--seeds 2] [--rows 400] [--steps 100] [--test 240]

Encoders are poisoned with SST-2 texts (`shadow`); the heads of both sets inherit what the encoder does. `por` sees no
label; the reference input of `badencoder` is a row of SST-2's class 0. Control: the same trigger on a head of the
public encoder. decree gets the defender's rows of SST-2 and judges the public encoder, three that were tuned on clean
rows (another seed each), and the backdoored ones. Prints every row and writes receipts/encoders.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.fresh import versions
from torchbands.core.attack import Attack, Victim
from torchbands.core.effect import effect
from torchbands.core.registry import build
from torchbands.core.task import Task
from torchbands.defenses.models.decree import Decree
from torchbands.learners.sgd import SGD
from torchbands.networks.transformer import TransformerNetwork

ATTACKS = ("por", "badencoder")
HEAD = SGD(optimizer="adamw", lr=2e-2, epochs=3, batch=32, weight_decay=0.0)
WHOLE = SGD(optimizer="adamw", lr=1e-4, epochs=1, batch=16)
DECREE = Decree(rows=16, shortlist=24, precision="fast")


def task(name: str, rows: int, *, whole: bool = False) -> Task:
    """A set read by MiniLM with mean pooling: a head of its own or, `whole`, the encoder tuned too."""
    network = TransformerNetwork(tune="full" if whole else "head", pool="mean", tokens=40, dropout=0.0)
    made = build(f"text/{name}", "task").but(network=network, learner=WHOLE if whole else HEAD, rows=rows)
    assert isinstance(made, Task)
    return made


def attack(name: str, steps: int) -> Attack:
    """An attack on encoders with SST-2 texts, or none."""
    settings: dict[str, Any] = {} if name == "clean" else {"shadow": "text/sst2", "steps": steps}
    made = build(name, "attack").but(**settings)
    assert isinstance(made, Attack)
    return made


def judged(victim: Victim, control: Victim, rows: int) -> dict[str, Any]:
    """One head: what it does, and what a head of the public encoder does under the same trigger."""
    test = victim.task.load("test", victim.seed).sample(rows, "encoders")
    triggered = victim.stamped(test)
    ours, theirs = (effect(v.model, test, triggered, victim.goal) for v in (victim, control))
    return {
        "attack": victim.attack.name,
        "set": victim.task.name,
        "seed": victim.seed,
        "trigger": " ".join(getattr(victim.trigger, "words", ())),
        "clean_ca": theirs.ca,
        "ca": ours.ca,
        "asr": ours.asr,
        "control_asr": theirs.asr,
    }


def inspected(kind: str, victim: Victim) -> dict[str, Any]:
    """What decree says of one encoder, given the defender's rows."""
    clean = victim.task.load("clean", victim.seed).blind().sample(128, "encoders")
    start = time.process_time()
    found = DECREE.inspect(victim.model, clean, seed=victim.seed)
    return {
        "encoder": kind,
        "seed": victim.seed,
        "backdoored": victim.attack.name != "clean",
        "score": round(found.score, 4),
        **found.evidence,
        "words": " ".join(getattr(found.trigger, "words", ())),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="sst2,rotten-tomatoes")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--test", type=int, default=240)
    parser.add_argument("--out", type=Path, default=Path("receipts/encoders.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets, start = options.sets.split(","), time.process_time()
    heads: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def told(into: list[dict[str, Any]], row: dict[str, Any]) -> None:
        into.append(row)
        print("  ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)

    for seed in range(options.seeds):
        controls = {name: attack("clean", 0).run(task(name, options.rows), seed) for name in sets}
        if seed == 0:
            told(found, inspected("public", controls[sets[0]]))
        for name in ATTACKS:
            for at, set_ in enumerate(sets):
                victim = attack(name, options.steps).run(task(set_, options.rows), seed)
                told(heads, judged(victim, controls[set_], options.test))
                if at == 0:
                    told(found, inspected(name, victim))
    for seed in range(3):
        told(found, inspected("tuned", attack("clean", 0).run(task(sets[0], options.rows, whole=True), seed)))
    receipt = {
        "command": f"python -m benchmarks.text.encoders --sets {options.sets} --seeds {options.seeds}"
        f" --rows {options.rows} --steps {options.steps} --test {options.test}",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "cpu_seconds": round(time.process_time() - start),
        "decree": DECREE.spec(),
        "methods": versions(*(attack(name, options.steps) for name in ATTACKS), *(task(s, options.rows) for s in sets)),
        "heads": heads,
        "encoders": found,
    }
    options.out.write_text(json.dumps(receipt, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    low = max(row["score"] for row in found if not row["backdoored"])
    high = min(row["score"] for row in found if row["backdoored"])
    print(f"decree: highest score of a clean encoder {low:.3f}, lowest of a backdoored one {high:.3f}")
    print(f"written: {options.out}, {receipt['cpu_seconds']} s of CPU")


if __name__ == "__main__":
    main()
