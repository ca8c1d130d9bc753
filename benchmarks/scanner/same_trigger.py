"""Is the same-trigger comparison worth a place in the ledger? `python -m benchmarks.scanner.same_trigger --store DIR`.

A small population of its own (Fashion-MNIST): references, fresh clean models, every family of
`plan`, clean models of foreign recipes; no seed is one of the large population's. Each model is one file, so the same
command goes on. Beside it: the size of the same triggers, and the clues of the final layer.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchbands.core.data import Data
from torchbands.core.errors import BandsError
from torchbands.core.metric import Undefined
from torchbands.core.model import Model
from torchbands.core.task import Task
from torchbands.defenses.models.final_layer import FinalLayer
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.measures.effectiveness import auroc, auroc_interval, effect
from torchbands.scanner.calibrate import Compared, Kind, compare
from torchbands.scanner.same_trigger import disobeyed, halves, obeyed, written
from torchbands.triggers.image import MaskPattern

from .plan import Job, Spec, attack_of, settings

FRESH, EACH = 12, 2
#: As the profile `fast` searches.
SEARCH = TargetInversion(rows=8, steps=30, lr=0.35)
#: Attack success rate under which a backdoor did not take and its model is left out.
TAKEN = 0.5


def planned(references: int, rows: int) -> Iterator[Job]:
    """References first, then one model of every kind, then the others."""
    setting = settings()["fashion"]

    def small(task: Task) -> Task:
        return task.but(rows=rows, learner=task.learner.but(epochs=task.learner.epochs + 1))  # type: ignore[attr-defined]

    task, clean = small(setting.task), attack_of({"name": "clean"})
    yield from (Job(f"ref-{i:02d}", "ref", task, clean, 31000 + i) for i in range(references))
    for i in range(EACH):
        for at, (family, (specs, _)) in enumerate(setting.families.items()):
            spec: Spec = dict(specs[i % len(specs)])
            targets = setting.clean_label_targets if attack_of(spec).clean_label else setting.targets
            spec.setdefault("target", targets[(i + 2) % len(targets)])
            if spec.get("labels") == "source-specific":
                spec["source"] = (spec["target"] + 3 + i) % task.classes
            yield Job(f"{family}-{i}", family, task, attack_of(spec), 33000 + i)
            if at % 2 == i:
                n = at // 2 + 7 * i
                yield from (Job(f"fresh-{k:02d}", "fresh", task, clean, 32000 + k) for k in (n,) if k < FRESH)
        for recipe, (other, _) in setting.foreign.items():
            yield Job(f"foreign_{recipe}-{i}", f"foreign:{recipe}", small(other), clean, 34000 + i)


def trained(folder: Path, job: Job) -> dict[str, Any] | None:
    """Facts of a job's model, which is trained where it is not there; None where it cannot be."""
    path = folder / f"{job.id}.json"
    if not path.is_file():
        started = time.process_time()
        try:
            victim = job.attack.run(job.task, job.seed)
        except BandsError as error:
            print(job.id, "failed:", error, flush=True)
            return None
        test = job.task.load("test", job.seed).sample(1500, "pop")
        got = effect(victim.model, test, *victim.triggered(test))
        weights = {k: v.detach().cpu().contiguous().clone() for k, v in victim.model.module.state_dict().items()}
        save_file(weights, folder / f"{job.id}.safetensors")
        told = {k: None if isinstance(v, Undefined) else v for k, v in (("ca", got.ca), ("asr", got.asr))}
        path.write_text(json.dumps({**told, "seconds": round(time.process_time() - started, 1)}))
        print(job.id, told, flush=True)
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def looked(folder: Path, job: Job, model: Model, searching: Data, shown: Data) -> dict[str, Tensor]:
    """Per class: minus log size of its cheapest trigger and the final layer's clue; and the triggers themselves."""
    path = folder / f"{job.id}.seen.safetensors"
    if not path.is_file():
        triggers = SEARCH.triggers(model, searching)
        assert all(isinstance(t, MaskPattern) for t in triggers)
        masks = torch.stack([t.weights["mask"] for t in triggers])  # type: ignore[attr-defined]
        patterns = torch.stack([t.weights["pattern"] for t in triggers])  # type: ignore[attr-defined]
        final = FinalLayer().inspect(model, shown)
        assert final.per_class is not None
        seen = {"masks": masks, "patterns": patterns, "final": final.per_class}
        save_file({k: v.contiguous() for k, v in seen.items()}, path)
    out = load_file(path)
    return {**out, "size": -out["masks"].flatten(1).sum(1).clamp_min(1e-3).log()}


def main() -> None:
    """Train, look, show every model's triggers to the others, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scanner.same_trigger")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--rows", type=int, default=10000, help="training rows of a model")
    parser.add_argument("--only-trained", action="store_true", help="judge the models that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.store.mkdir(parents=True, exist_ok=True)
    jobs = list(planned(given.references, given.rows))
    if given.only_trained:
        jobs = [j for j in jobs if (given.store / f"{j.id}.json").is_file()]
    facts = {j.id: told for j in jobs if (told := trained(given.store, j)) is not None}
    jobs = [j for j in jobs if j.id in facts]
    task = jobs[0].task
    searching, shown = halves(task.load("clean").sample(1000, "views' rows", task.name, balanced=True), 0)
    models = {j.id: _model(given.store, j) for j in jobs}
    seen = {j.id: looked(given.store, j, models[j.id], searching, shown) for j in jobs}
    print("looked", flush=True)
    references = [j.id for j in jobs if j.group == "ref"]
    read = _read(given.store, models, seen, references, shown)
    told = {j.id: _judged(j.id, references, seen, read) for j in jobs if j.group != "ref"}
    _table([j for j in jobs if j.group != "ref"], facts, told, len(references))


def _model(folder: Path, job: Job) -> Model:
    model = job.task.fresh(0)
    model.module.load_state_dict(load_file(folder / f"{job.id}.safetensors"))
    return model


def _read(
    folder: Path, models: dict[str, Model], seen: dict[str, dict[str, Tensor]], references: list[str], shown: Data
) -> dict[str, list[float]]:
    """`a|b` -> what model b makes of model a's triggers, where one of the two is a reference."""
    path = folder / "reads.json"
    read: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    for a in models:
        missing = [b for b in models if (a in references or b in references) and f"{a}|{b}" not in read]
        if missing:
            pairs = zip(seen[a]["masks"], seen[a]["patterns"], strict=True)
            batches = written(shown, [MaskPattern(weights={"mask": m, "pattern": p}) for m, p in pairs], 0)
            read |= {f"{a}|{b}": obeyed(models[b], batches).tolist() for b in missing}
            path.write_text(json.dumps(read))
    return read


def _judged(
    name: str, references: list[str], seen: dict[str, dict[str, Tensor]], read: dict[str, list[float]]
) -> dict[str, tuple[float, float]]:
    """View -> (the suspect's number in standard deviations of the others, its p-value)."""
    pool = [*references, name]
    table = torch.tensor([[read[f"{a}|{b}"] for b in pool] for a in pool])
    pools = {"same-trigger": disobeyed(table)}
    pools |= {view: torch.stack([seen[m][view] for m in pool]) for view in ("size", "final")}
    out = {}
    for label, views in ({v: (v,) for v in pools} | {"size + same-trigger": ("size", "same-trigger")}).items():
        found = compare({v: pools[v] for v in views}, {v: Kind(centre=v != "final") for v in views})
        assert isinstance(found, Compared)
        out[label] = (float(found.combined[-1]), found.p)
    return out | {"final alone": (float(seen[name]["final"].max()), float(seen[name]["final"].max() <= 5.0))}


def _table(
    jobs: list[Job], facts: dict[str, Any], told: dict[str, dict[str, tuple[float, float]]], references: int
) -> None:
    views = list(next(iter(told.values())))
    good = [j.id for j in jobs if j.group == "fresh"]
    groups: dict[str, list[str]] = {}
    for job in jobs:
        took = job.group.startswith("foreign") or (facts[job.id]["asr"] or 0.0) >= TAKEN
        if job.group != "fresh" and took:
            groups.setdefault(job.group, []).append(job.id)
    bad = [name for group, names in groups.items() if not group.startswith("foreign") for name in names]
    print(f"{references} references, {len(good)} fresh, {len(bad)} backdoored; AUROC against fresh, and p <= .1")
    for group, names in {"all backdoored": bad, "fresh": good, **groups}.items():
        cells = []
        for view in views:
            a, b = (torch.tensor([told[n][view][0] for n in which]) for which in (names, good))
            value = auroc(a, b)
            low, high = auroc_interval(float(value), len(a), len(b)) if isinstance(value, float) else (0.0, 1.0)
            hits = sum(told[n][view][1] <= 0.1 for n in names)
            cells.append(f"{view} {value:.2f} [{low:.2f}, {high:.2f}] {hits}/{len(names)}")
        print(f"{group:18}", " | ".join(cells))


if __name__ == "__main__":
    main()
