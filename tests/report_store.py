"""A made-up store for the tests of the report. The numbers are invented; nothing here was measured."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from torchbands.modalities.image import png

TASK = "vision/digits"
#: attack label -> (ASR, clean accuracy, how hard it is for detectors from 0 to 1)
ATTACKS = {
    "badnets": (0.998, 0.914, 0.1),
    "blended(alpha=0.1)": (0.985, 0.911, 0.45),
    "wanet": (0.962, 0.905, 0.9),
    "sig": (0.22, 0.912, 0.7),
    "clean": (0.09, 0.915, 1.0),
}
DEFENSES = {
    "strip": "input-detector",
    "scale-up": "input-detector",
    "badexpert": "input-detector",
    "neural-cleanse": "model-detector",
    "mm-bd": "model-detector",
    "spectral-signatures": "data-filter",
    "activation-clustering": "data-filter",
    "abl": "training",
    "fine-pruning": "repair",
    "anp": "repair",
}


def write(folder: Path, *, rename: dict[str, str] | None = None, seeds: int = 3, fragment: str = "") -> Path:
    """A store of 4 attacks, the benign row and 10 defenses. `rename` changes labels; `fragment` replaces pictures."""
    rename = rename or {}
    rng = random.Random(0)
    (folder / "outcomes").mkdir(parents=True)
    (folder / "records").mkdir()
    grid = {"preset": "quick", "command": f"bands bench run quick --store {rename.get('store', 'demo')}"}
    grid |= {"created": "2026-01-02T03:04:05+00:00", "grid": {"seeds": list(range(seeds)), "min_asr": 0.5}}
    grid |= {"versions": {"torchbands": "0.1.0", "torch": "2.13.0", "python": "3.12.1", "device": "cpu (x86_64)"}}
    grid |= {"question": rename.get("question", "Which defenses notice or remove a backdoor in a small image model?")}
    (folder / "grid.json").write_text(json.dumps(grid))
    for attack, (asr, ca, hard) in ATTACKS.items():
        for seed in range(seeds):
            victim = _victim(attack, asr, ca, seed, rng, rename, fragment)
            (folder / "outcomes" / f"{victim['key']}.json").write_text(json.dumps(victim))
            for defense, role in DEFENSES.items():
                record = _defense(victim, defense, role, asr, ca, hard, rng, rename, fragment)
                (folder / "records" / f"{record['key']}.json").write_text(json.dumps(record))
    return folder


def _victim(
    attack: str, asr: float, ca: float, seed: int, rng: random.Random, rename: dict[str, str], fragment: str
) -> dict[str, Any]:
    def near(value: float, by: float = 0.005) -> float:
        return round(min(1.0, max(0.0, value + rng.uniform(-by, by))), 6)

    benign = attack == "clean"
    metrics: dict[str, Any] = {"ca": near(ca), "asr": near(asr), "control_asr": near(0.09), "ra": near(0.9 - asr * 0.9)}
    metrics |= {"lift": round(metrics["asr"] - metrics["control_asr"], 6), "clean_ca": near(0.915)}
    stealth: dict[str, Any] = {
        "input": {"psnr_db": near(24, 2), "ssim": near(0.93), "l0_pixels": near(9), "stealth": near(0.3, 0.1)},
        "feature": {"probe_auroc": near(0.95), "silhouette": near(0.4), "stealth": near(0.2, 0.1)},
        "parameter": {"stealth": None, "undefined": {"stealth": "one model has no distribution"}},
    }
    return {
        "key": f"v-{list(ATTACKS).index(attack)}-{seed}",
        "kind": "victim",
        "task": TASK,
        "task_spec": {"role": "task", "name": TASK, "version": 1, "params": {}},
        "attack": attack.split("(")[0],
        "attack_label": rename.get(attack, attack),
        "seed": seed,
        "status": "done",
        "reason": None,
        "traceback": None,
        "metrics": metrics,
        "stealth": stealth,
        "cost": {"seconds": near(41, 3), "cpu_seconds": near(80, 3), "peak_mb": near(812, 30), "poisoned": 143},
        "samples": [] if benign else _samples(attack, rename, fragment),
    }


def _defense(
    victim: dict[str, Any],
    defense: str,
    role: str,
    asr: float,
    ca: float,
    hard: float,
    rng: random.Random,
    rename: dict[str, str],
    fragment: str,
) -> dict[str, Any]:
    skill = (1 - hard * rng.uniform(0.5, 0.9)) * (0.6 if defense in ("scale-up", "mm-bd") else 1.0)
    benign = victim["attack"] == "clean"
    record: dict[str, Any] = {
        "key": f"d-{victim['key']}-{defense}",
        "kind": "defense",
        "victim": victim["key"],
        **{k: victim[k] for k in ("task", "attack", "attack_label", "seed")},
        "defense": defense,
        "defense_label": rename.get(defense, defense),
        "role": role,
        "status": "done",
        "reason": None,
        "scores": None,
        "cost": {
            "seconds": rng.uniform(0.4, 30),
            "cpu_seconds": rng.uniform(1, 60),
            "peak_mb": rng.uniform(700, 900),
            "forward_passes": rng.randint(2000, 90000),
            "clean_samples": 200,
        },
    }
    if role in ("data-filter", "training") and victim["attack"] == "wanet":
        reason = rename.get("reason", "wanet controls training: there is no poisoned data set to filter")
        return record | {"status": "not-applicable", "reason": reason, "metrics": {}, "cost": {}}
    if defense == "badexpert" and victim["attack_label"].startswith("blended") and victim["seed"] == 1:
        return record | {"status": "failed", "reason": "RuntimeError: out of memory", "traceback": "Traceback ..."}
    auroc = 0.5 if benign else min(1.0, 0.5 + skill / 2 + rng.uniform(0, 0.02))
    if role in ("input-detector", "data-filter"):
        found = {"auroc": auroc, "tpr_at_1": skill * 0.8, "tpr_at_5": skill, "rule_recall": skill * 0.9}
        found["ties"] = 0.25 if defense == "scale-up" else 0.0
        record["metrics"] = found | {"rule_fpr": rng.uniform(0.01, 0.06)}
        record["scores"] = _histogram(auroc, role, benign)
        if role == "data-filter" and benign:
            record["metrics"] |= {"auroc": None, "undefined": {"auroc": "needs rows of both kinds, got 0 and 1437"}}
        if defense == "scale-up":
            record["metrics"] = {k: v for k, v in record["metrics"].items() if not k.startswith("rule")}
            record["metrics"]["undefined"] = {"rule_fpr": "the paper gives no threshold"}
    elif role == "model-detector":
        score = rng.gauss(0.8 if benign else 0.8 + 3 * skill, 0.3)
        record["metrics"] = {"score": score, "flagged": float(score > 2), "target_hit": None if benign else 1.0}
        if defense == "neural-cleanse":
            before, after = _pictures(victim["attack"])
            record |= {"recovered_html": fragment or before, "true_html": fragment or after}
    else:
        after, lost = max(0.02, asr * hard * rng.uniform(0.6, 0.9)), rng.uniform(0.002, 0.04)
        record["metrics"] = {"ca": ca - lost, "asr": after, "ra": 0.8, "ca_drop": lost, "ca_before": ca}
        record["metrics"] |= {"asr_before": asr, "der": None if benign else (asr - after - lost + 1) / 2}
    return record


def _histogram(auroc: float, role: str, benign: bool) -> dict[str, list[float]]:
    rng = np.random.default_rng(int(auroc * 1e6))
    low, high = (
        rng.normal(0, 1, 1000),
        rng.normal(0.1 + (auroc - 0.5) * 8, 0.8, 0 if benign and role != "input-detector" else 500),
    )
    edges = np.histogram_bin_edges(np.concatenate([low, high]), 20)
    counts = [np.histogram(v, edges)[0].astype(float).tolist() for v in (low, high)]
    return {"clean": counts[0], "triggered": counts[1], "edges": edges.tolist()}


def _samples(attack: str, rename: dict[str, str], fragment: str) -> list[dict[str, str]]:
    out = []
    for i in range(3):
        a, b = (fragment, fragment) if fragment else _pictures(attack, i)
        diff = fragment or _pictures(attack, i, True)[1]
        out.append(
            {
                "original": a,
                "triggered": b,
                "difference": diff,
                "label": rename.get("class", str(i + 1)),
                "becomes": "0",
            }
        )
    return out


@lru_cache
def _pictures(attack: str, row: int = 0, difference: bool = False) -> tuple[str, str]:
    image = torch.tensor(load_digits().images[row + 1] / 16, dtype=torch.float32)[None]
    stamped = image.clone()
    if attack.startswith("badnets"):
        stamped[:, -3:-1, -3:-1] = 1
    elif attack.startswith("blended"):
        stamped = 0.8 * image + 0.2 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    else:
        stamped = (image.roll(1, 2) * 0.5 + image * 0.5).clamp(0, 1)
    shown = ((stamped - image).abs() * 4).clamp(0, 1) if difference else stamped
    return tuple(f'<img class="sample" alt="image" src="data:image/png;base64,{png(i)}">' for i in (image, shown))  # type: ignore[return-value]
