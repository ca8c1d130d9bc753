"""Is the same-trigger comparison worth a place in the ledger? The stage `same-trigger` of `benchmarks.scanner make`
shows the triggers of every model of a population to its references; the tables judge what they make of them.

Everything is kept in a folder of its own beside the population, which is only read: SETTING/KEY/refs/NNNN.safetensors
and SETTING/KEY/suspects/ID.safetensors. A file says which weights it was made of, so that the same command goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchbands import zoo
from torchbands.core.data import Batch, Data
from torchbands.core.model import Model
from torchbands.defenses.models.target_inversion import TargetInversion
from torchbands.scanner.reference_files import WEIGHTS
from torchbands.scanner.references import VIEW_SEED, ReferenceSet
from torchbands.scanner.same_trigger import SHOWN, disobeyed, halves, obeyed, written
from torchbands.triggers.image import MaskPattern

from .plan import Setting

#: As the profile `fast` searches.
SEARCH = TargetInversion(rows=8, steps=30, lr=0.35)
#: Of a victim's folder.
MODEL = "model.safetensors"


def home(folder: Path, made: ReferenceSet) -> Path:
    """Where what was found with one search and one set of references is kept."""
    named = hashlib.sha256(f"{SEARCH.key()} {SHOWN}".encode())
    for member in made.members():
        named.update((member / WEIGHTS).read_bytes())
    return folder / named.hexdigest()[:12]


def show(store: Path, setting: Setting, out: Path, part: int, parts: int) -> None:
    """Search every model's triggers and show them: the references' to all models, the suspects' to the references."""
    folder, made = store / setting.name, ReferenceSet.load(store / setting.name / "refs")
    if made.modality.discrete:
        return  # words are compared so already: `token-effects`
    kept = home(out / setting.name, made)
    searching, shown = halves(made.clean, VIEW_SEED)
    members = made.members()
    references = [made.model(m, lambda: setting.task.network.build(made.modality, made.classes)) for m in members]
    batches = []
    for member, model in zip(members, references, strict=True):
        own = _triggers(kept / "refs" / f"{member.name}.safetensors", member / WEIGHTS, model, searching)
        batches.append(_written(own, shown))
    print(setting.name, "triggers of", len(references), "references", flush=True)
    for member, mine in list(zip(members, batches, strict=True))[part::parts]:
        path, weights = kept / "refs" / f"{member.name}.safetensors", member / WEIGHTS
        if "by" not in (found := _read(path, weights)):
            _write(path, weights, {**found, "by": torch.stack([obeyed(m, mine) for m in references])})
            print(setting.name, "reference", member.name, flush=True)
    for victim in sorted((folder / "victims").iterdir())[part::parts]:
        path, weights = kept / "suspects" / f"{victim.name}.safetensors", victim / MODEL
        if "by" not in _read(path, weights):
            model = zoo.load(victim).model
            own = _triggers(path, weights, model, searching)
            by = torch.stack([obeyed(m, _written(own, shown)) for m in references])
            _write(path, weights, {**own, "by": by, "of": torch.stack([obeyed(model, theirs) for theirs in batches])})
            print(setting.name, victim.name, flush=True)


def _triggers(path: Path, weights: Path, model: Model, searching: Data) -> dict[str, Tensor]:
    """Mask and pattern of every class's cheapest trigger, and minus its log size."""
    found = _read(path, weights)
    if "mask" not in found:
        triggers = [t for t in SEARCH.triggers(model, searching) if isinstance(t, MaskPattern)]
        found = {name: torch.stack([t.weights[name] for t in triggers]) for name in ("mask", "pattern")}
        found["size"] = -found["mask"].flatten(1).sum(1).clamp_min(1e-3).log()
        _write(path, weights, found)
    return found


def _written(triggers: dict[str, Tensor], shown: Data) -> list[Batch]:
    pairs = zip(triggers["mask"], triggers["pattern"], strict=True)
    return written(shown, [MaskPattern(weights={"mask": m, "pattern": p}) for m, p in pairs], VIEW_SEED)


def _read(path: Path, weights: Path) -> dict[str, Tensor]:
    """What is known of a model, nothing where its weights are others."""
    if not path.is_file():
        return {}
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("weights") != hashlib.sha256(weights.read_bytes()).hexdigest():
            return {}
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _write(path: Path, weights: Path, found: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"weights": hashlib.sha256(weights.read_bytes()).hexdigest()}
    temporary = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in found.items()}, temporary, metadata=said)
    temporary.replace(path)


def pools(
    store: Path, name: str, out: Path, made: ReferenceSet, suspects: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """Suspect -> "same-trigger" and "size of the same triggers" -> (n + 1, K) numbers of its pool, the suspect's last.
    Suspects that were not shown anything are not there."""
    kept = home(out / name, made)
    theirs = [_read(kept / "refs" / f"{m.name}.safetensors", m / WEIGHTS) for m in made.members()]
    if not theirs or not all("by" in found for found in theirs):
        return {}
    among, sizes = torch.stack([f["by"] for f in theirs]), torch.stack([f["size"] for f in theirs])
    told = {}
    for suspect in suspects:
        mine = _read(kept / "suspects" / f"{suspect}.safetensors", store / name / "victims" / suspect / MODEL)
        if "by" in mine:
            n = len(theirs)
            table = torch.zeros(n + 1, n + 1, mine["by"].shape[1])
            table[:n, :n], table[n, :n], table[:n, n] = among, mine["by"], mine["of"]
            told[suspect] = {
                "same-trigger": disobeyed(table),
                "size of the same triggers": torch.cat([sizes, mine["size"][None]]),
            }
    return told
