"""On how many rows a network reads the trigger, and whether the backdoor takes: data sets of long texts.

    python -m benchmarks.text.readable [TASK ...] [--attack badnets] [--rows 2000] [--rate 0.1] [--seed 0]

A row is readable when the trigger changes what the network reads of it. Prints, for every task, the share of readable
rows among poisoned training rows and triggered test rows, on how many of these the trigger is still there when STRIP
has laid a clean text over them, the attack's success rate and STRIP's AUROC. For triggers that insert words.
"""

from __future__ import annotations

import argparse
import time

import torch

from torchbands.attacks.texts import own_tokens
from torchbands.core.attack import Attack, Victim
from torchbands.core.data import Data, take, whole
from torchbands.core.modality import Modality
from torchbands.core.registry import build
from torchbands.core.seeding import RowRng
from torchbands.core.task import Task
from torchbands.defenses.inputs.strip import STRIP
from torchbands.measures.effectiveness import auroc

TASKS = ("text/bbc-news", "text/spam-mail", "text/imdb")
#: Test rows that STRIP is asked about.
ASKED = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--attack", default="badnets")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.attack}, rate {options.rate}, seed {options.seed}; shares of rows on which the trigger is read")
    for name in options.tasks:
        task, attack = build(name, "task"), build({"name": options.attack, "rate": options.rate}, "attack")
        assert isinstance(task, Task) and isinstance(attack, Attack)
        held = len(task.load("train"))
        if options.rows < held:
            task = task.but(rows=options.rows)
        print(row(task, attack, options.seed), flush=True)


def row(task: Task, attack: Attack, seed: int) -> str:
    """One line of the table."""
    start = time.process_time()
    train, test = task.load("train", seed), task.load("test", seed)
    poisoned = attack.poison(train, task, seed)
    assert poisoned.poisoned is not None
    rows = poisoned.poisoned.nonzero().flatten()
    planted = share(task.modality, train[rows].x, poisoned[rows].x)
    victim = attack.run(task, seed)
    wanted = attack.relabel(test.y, task.classes)
    before = test[((wanted != test.y) & attack.writable(test, task, seed)).nonzero().flatten()]
    after, goal = victim.triggered(test)
    success = float((victim.model.logits(after.x).argmax(1) == goal).float().mean())
    right = float((victim.model.logits(test.x).argmax(1) == test.y).float().mean())
    strip = STRIP().fit(victim.model, task.load("clean", seed))
    area = auroc(strip.score(after[:ASKED].x), strip.score(before[:ASKED].x))
    laid = overlaid(victim, after[:ASKED])
    shown = share(task.modality, before.x, after.x)
    return (
        f"{task.name}: {len(train)} rows, poisoned {planted:.3f}, triggered {shown:.3f},"
        f" under an overlay {laid:.3f}; CA {right:.3f}, ASR {success:.3f}, STRIP {area:.3f}"
        f" ({time.process_time() - start:.0f} CPU s)"
    )


def share(modality: Modality, before: object, after: object) -> float:
    """Of paired rows, those that a network reads differently."""
    a, b = modality.encode(whole(before)).values, modality.encode(whole(after)).values
    return float((a != b).flatten(1).any(1).float().mean())


def overlaid(victim: Victim, data: Data) -> float:
    """Of triggered rows, each under a clean text of its own as STRIP lays it, those that still hold the trigger."""
    model, clean, at = victim.model, victim.task.load("clean", victim.seed), torch.arange(len(data))
    ids = own_tokens(model, victim.trigger, model.encode(whole(clean.x)))
    mixed = model.modality.blend(whole(data.x), take(clean.x, at % len(clean)), 1.0, 1.0, RowRng(0, at))
    return float(torch.isin(model.encode(mixed).values, ids).any(1).float().mean())


if __name__ == "__main__":
    main()
