"""From what the views saw to tables: who is told apart, at which false-alarm rate, and whether combining pays."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from scipy import stats
from torch import Tensor

from benchmarks.fresh import versions
from torchbands import __version__
from torchbands.core.metric import Undefined
from torchbands.defenses.models.final_layer import FinalLayer
from torchbands.measures.effectiveness import auroc, auroc_interval
from torchbands.scanner.calibrate import Compared, Kind, compare
from torchbands.scanner.comparable import outside
from torchbands.scanner.pairs import pooled
from torchbands.scanner.references import ReferenceSet
from torchbands.scanner.views import PROFILES, View, white_box

from .make import asked_key
from .uniform import uniform

#: A victim counts from this attack success on (all-to-all: this share of the clean accuracy).
VALID = 0.7
#: And by this much more than a never-poisoned model obeys the same trigger.
LIFT = 0.5
ALPHAS = (0.05, 0.01)


@dataclass(frozen=True)
class Suspect:
    """One judged model: what is true of it and what every view saw."""

    id: str
    group: str
    facts: Mapping[str, Any]
    seen: Mapping[str, Tensor]

    @property
    def valid(self) -> bool:
        if not self.facts["backdoored"]:
            return True
        wanted = VALID * (self.facts["ca"] if self.group == "all-to-all" else 1.0)
        asr, control = self.facts["asr"], self.facts.get("control_asr", 0.0)
        return asr is not None and asr >= wanted and asr - control >= LIFT


@dataclass(frozen=True)
class Zoo:
    """A setting's references and suspects."""

    references: ReferenceSet
    suspects: tuple[Suspect, ...]

    @classmethod
    def load(cls, folder: Path) -> Zoo:
        found = []
        for path in sorted((folder / "facts").glob("*.json")):
            facts = json.loads(path.read_text())
            seen = folder / "seen" / f"{path.stem}.safetensors"
            if seen.is_file():
                found.append(Suspect(path.stem, facts["group"], facts, load_file(seen)))
        return cls(ReferenceSet.load(folder / "refs"), tuple(found))

    def group(self, wanted: Callable[[str], bool]) -> list[Suspect]:
        return [s for s in self.suspects if wanted(s.group) and s.valid]

    @property
    def fresh(self) -> list[Suspect]:
        return self.group(lambda g: g == "fresh")

    @property
    def families(self) -> list[str]:
        return sorted({s.group for s in self.suspects if s.facts["backdoored"]})


Scores = dict[str, tuple[float, float]]  # suspect -> (statistic, p)


#: suspect -> view -> (n + 1, ...) numbers of its pool, for views that are in no profile.
More = Mapping[str, Mapping[str, Tensor]]


def judged(
    zoo: Zoo, views: Sequence[View], limit: int | None = None, more: More | None = None
) -> dict[str, Compared | None]:
    """Every suspect against the references (the first `limit` of them); with `more`, those that it names alone."""
    theirs = {v.name: (v, numbers[:limit]) for v in views if (numbers := zoo.references.numbers(v)) is not None}
    asked = {v.name: both[1][:limit] for v in views if (both := zoo.references.pairs(v)) is not None}
    out = {}
    for s in zoo.suspects if more is None else [s for s in zoo.suspects if s.id in more]:
        pools = {
            name: _pool(s, v, numbers, asked.get(name))
            for name, (v, numbers) in theirs.items()
            if v.key() in s.seen and s.seen[v.key()].shape == numbers.shape[1:]
        }
        kinds = {name: theirs[name][0].kind for name in pools}
        for name, pool in (more or {}).get(s.id, {}).items():
            pools[name], kinds[name] = pool, Kind()
        out[s.id] = compare(pools, kinds) if pools else None
    return out


def _pool(suspect: Suspect, view: View, theirs: Tensor, asked: Tensor | None) -> Tensor:
    """The references' numbers with the suspect's; of pairs of classes also those that any model puts forward."""
    mine = suspect.seen[view.key()]
    own = torch.cat([theirs, mine[None]])
    if asked is None:
        return own
    answers = suspect.seen.get(asked_key(view), torch.full_like(mine, torch.nan))
    return pooled(own, torch.cat([asked, answers[None]]))


def scores(zoo: Zoo, views: Sequence[View], limit: int | None = None, more: More | None = None) -> Scores:
    """Statistic and p of every suspect by the combination of some views."""
    return {i: (float(c.combined[-1]), c.p) for i, c in judged(zoo, views, limit, more).items() if c is not None}


def auroc_of(found: Scores, bad: Sequence[Suspect], good: Sequence[Suspect]) -> dict[str, Any] | None:
    """AUROC with its 95 % interval."""
    a = torch.tensor([found[s.id][0] for s in bad if s.id in found])
    b = torch.tensor([found[s.id][0] for s in good if s.id in found])
    value = auroc(a, b)
    if isinstance(value, Undefined):
        return None
    low, high = auroc_interval(value, len(a), len(b))
    return {"auroc": round(value, 4), "low": round(low, 4), "high": round(high, 4), "n": [len(a), len(b)]}


def gain(a: Scores, b: Scores, bad: Sequence[Suspect], good: Sequence[Suspect]) -> dict[str, float] | None:
    """By how much the AUROC of `a` exceeds that of `b`, with a paired bootstrap over models (95 %, 2,000 draws)."""
    both = [[s for s in group if s.id in a and s.id in b] for group in (bad, good)]
    if not all(both):
        return None
    rng = torch.Generator().manual_seed(0)
    wins = []
    for found in (a, b):
        x, y = (torch.tensor([found[s.id][0] for s in group]) for group in both)
        wins.append((x[:, None] > y[None]).float() + 0.5 * (x[:, None] == y[None]).float())
    difference = wins[0] - wins[1]
    n, m = difference.shape
    rows, columns = torch.randint(n, (2000, n), generator=rng), torch.randint(m, (2000, m), generator=rng)
    drawn = torch.stack([difference[r][:, c].mean() for r, c in zip(rows, columns)])
    low, high = drawn.quantile(torch.tensor([0.025, 0.975])).tolist()
    return {"gain": round(float(difference.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def rate(found: Scores, suspects: Sequence[Suspect], alpha: float) -> dict[str, Any] | None:
    """Share with p <= alpha, with its 95 % Clopper-Pearson interval."""
    return share([found[s.id][1] <= alpha + 1e-12 for s in suspects if s.id in found])


def share(hits: Sequence[bool]) -> dict[str, Any] | None:
    """Share of what is true, with its 95 % Clopper-Pearson interval."""
    if not hits:
        return None
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci()
    return {
        "share": round(sum(hits) / len(hits), 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "n": len(hits),
    }


def profile_report(zoo: Zoo, profile: str) -> dict[str, Any]:
    """Everything about one profile on one setting."""
    views = white_box(profile, tokens=zoo.references.modality.discrete)
    trigger = [v for v in views if v.says == "trigger"]
    recipe = [v for v in views if v.says == "recipe"]
    guard = [v for v in views if v.guard]
    rows: dict[str, Scores] = {"p_trigger (combined)": scores(zoo, trigger), "p_recipe (combined)": scores(zoo, recipe)}
    rows["everything combined"] = scores(zoo, [*trigger, *recipe])
    rows |= {v.name: scores(zoo, [v]) for v in views}
    bad = zoo.group(lambda g: g in zoo.families)
    foreign = sorted({s.group for s in zoo.suspects if s.group.startswith("foreign:")})
    turned = {i for i, c in judged(zoo, guard).items() if c is not None and outside(c, 0.05)}
    tables: dict[str, Any] = {}
    for name, found in rows.items():
        tables[name] = {
            "all": auroc_of(found, bad, zoo.fresh),
            "families": {f: auroc_of(found, [s for s in bad if s.group == f], zoo.fresh) for f in zoo.families},
            "power": {str(a): rate(found, bad, a) for a in ALPHAS},
            "false_alarms": {str(a): rate(found, zoo.fresh, a) for a in ALPHAS},
            "foreign": {g: {str(a): rate(found, zoo.group(lambda x, g=g: x == g), a) for a in ALPHAS} for g in foreign},
        }
    p = [rows["p_trigger (combined)"][s.id][1] for s in zoo.fresh]
    theirs = len(zoo.references)
    even = {name: uniform([found[s.id][1] for s in zoo.fresh if s.id in found], theirs) for name, found in rows.items()}
    groups = ["fresh", *zoo.families, *foreign]
    return {
        "rows": tables,
        "gain": {v.name: gain(rows["p_trigger (combined)"], rows[v.name], bad, zoo.fresh) for v in trigger},
        "uniform": even,
        "p_fresh": sorted(round(v, 4) for v in p),
        "verdicts": {g: _verdicts(zoo.group(lambda x, g=g: x == g), rows, turned) for g in groups},
        "target": _target(zoo, trigger, bad),
        "references": {
            str(n): {
                "all": auroc_of(found := scores(zoo, trigger, n), bad, zoo.fresh),
                "power": rate(found, bad, 0.05),
                "false_alarms": rate(found, zoo.fresh, 0.05),
            }
            for n in (20, 40, 60, 100)
            if n <= len(zoo.references)
        },
        "seconds": _seconds(zoo, views),
    }


def _verdicts(group: Sequence[Suspect], rows: Mapping[str, Scores], turned: set[str]) -> dict[str, int]:
    """What `scan` says at alpha 0.05."""
    out = {"indicated": 0, "unusual": 0, "none": 0, "inconclusive": 0}
    for s in group:
        trigger, recipe = (rows[f"p_{k} (combined)"][s.id][1] for k in ("trigger", "recipe"))
        if s.id in turned:
            out["inconclusive"] += 1
        else:
            out["indicated" if trigger <= 0.05 else "unusual" if recipe <= 0.05 else "none"] += 1
    return out


def _target(zoo: Zoo, views: Sequence[View], bad: Sequence[Suspect]) -> dict[str, Any]:
    """How often the class that stands out most is the attacker's (single-target attacks)."""
    found, hits, n = judged(zoo, views), 0, 0
    for s in bad:
        c = found[s.id]
        if c is None or s.group == "all-to-all":
            continue
        top = max(c.per_view, key=lambda name: float(c.per_view[name][-1].nan_to_num(-1e9)))
        cells = c.cells[top]
        at = int(cells.nan_to_num(-torch.inf).argmax())
        n += 1
        hits += at % zoo.references.classes == s.facts["target"]
    return {"right": hits, "of": n}


def _seconds(zoo: Zoo, views: Sequence[View]) -> dict[str, float]:
    """Median seconds of each view, as measured while other work ran."""
    out = {}
    for v in views:
        told = [s.facts["views"][v.key()]["seconds"] for s in zoo.suspects if v.key() in s.facts["views"]]
        if told:
            out[v.name] = round(statistics.median(told), 2)
    return out


def baselines(folder: Path) -> dict[str, Any]:
    """Published detectors with their own rule, on the models they were run on (the same ones for all)."""
    told = {p.stem: json.loads(p.read_text()) for p in sorted((folder / "baselines").glob("*.json"))}
    facts = {i: json.loads((folder / "facts" / f"{i}.json").read_text()) for i in told}
    suspects = [s for s in (Suspect(i, f["group"], f, {}) for i, f in facts.items()) if s.valid]
    good = [s for s in suspects if s.group == "fresh"]
    bad = [s for s in suspects if s.facts["backdoored"]]
    families = sorted({f["group"] for f in facts.values() if f["backdoored"]})
    out: dict[str, Any] = {}
    for name in sorted({n for t in told.values() for n in t}):
        if not all(name in t for t in told.values()):
            continue  # the same models for all
        said = {s.id: told[s.id][name] for s in suspects}
        found: Scores = {i: (t["score"], 0.0) for i, t in said.items() if t["score"] is not None}
        out[name] = {
            "all": auroc_of(found, bad, good),
            "families": {f: auroc_of(found, [s for s in bad if s.group == f], good) for f in families},
            "rule_recall": _share([said[s.id]["flagged"] for s in bad]),
            "rule_false_alarms": _share([said[s.id]["flagged"] for s in good]),
            "seconds": round(statistics.median(t["seconds"] for t in said.values()), 2) if said else None,
        }
    return out


def _share(flags: Sequence[bool | None]) -> float | None:
    known = [f for f in flags if f is not None]
    return round(sum(known) / len(known), 4) if known else None


def members(zoo: Zoo) -> dict[str, Any]:
    """The models: how many there are, how well the attack took, how accurate they are."""
    out = {}
    for group in ["fresh", *zoo.families, *sorted({s.group for s in zoo.suspects if s.group.startswith("foreign:")})]:
        mine = [s for s in zoo.suspects if s.group == group]
        control = [s.facts["control_asr"] for s in mine if "control_asr" in s.facts]
        asr = [s.facts["asr"] for s in mine if s.facts["asr"] is not None and s.facts["backdoored"]]
        out[group] = {
            "models": len(mine),
            "valid": sum(s.valid for s in mine),
            "ca": round(statistics.mean(s.facts["ca"] for s in mine), 4),
            "asr": round(statistics.mean(asr), 4) if asr else None,
            "asr_worst": round(min(asr), 4) if asr else None,
            "control_asr": round(statistics.mean(control), 4) if asr and control else None,
        }
    return out


RECEIPT = Path("receipts/scanner.json")


def write(store: Path, names: Sequence[str], same: Path | None = None) -> None:
    """receipts/scanner.json and, from it, docs/scanner-results.md. Settings that the store lacks stay as they are."""
    from .combining import ways
    from .rivals import final_layer, meta_classifier, price
    from .same_judged import same_trigger

    receipt: dict[str, Any] = {
        "command": "python -m benchmarks.scanner make && python -m benchmarks.scanner tables",
        "torchbands": __version__,
        "settings": json.loads(RECEIPT.read_text())["settings"] if RECEIPT.is_file() else {},
    }
    for name in names:
        if not (store / name / "facts").is_dir():
            continue
        zoo = Zoo.load(store / name)
        receipt["settings"][name] = {
            "methods": methods(zoo, store / name),
            "calibration": zoo.references.summary(),
            "members": members(zoo),
            "profiles": {profile: profile_report(zoo, profile) for profile in PROFILES},
            "meta_classifier": meta_classifier(zoo, "full"),
            "price": price(zoo, "full"),
            "final_layer": final_layer(zoo, store / name),
            "same_trigger": same_trigger(zoo, store, name, same or store / "same-trigger"),
            "combining": ways(zoo, "full"),
            "baselines": baselines(store / name),
        }
    _keep(receipt)


def methods(zoo: Zoo, folder: Path) -> dict[str, int]:
    """Versions of the tasks and attacks that made the models, and of the detectors that looked at them."""
    made = [spec for s in zoo.suspects for spec in s.facts["spec"][:2]]
    views = [v.detector for profile in PROFILES.values() for v in profile]
    rivals = [t["spec"] for p in (folder / "baselines").glob("*.json") for t in json.loads(p.read_text()).values()]
    return versions(*made, *views, *rivals, FinalLayer())


def write_baselines(store: Path, names: Sequence[str]) -> None:
    """Only the published detectors, into a receipt that is there: they need no references."""
    receipt = json.loads(RECEIPT.read_text())
    for name in names:
        if (store / name / "baselines").is_dir() and name in receipt["settings"]:
            receipt["settings"][name]["baselines"] = baselines(store / name)
            receipt["settings"][name]["methods"] = methods(Zoo.load(store / name), store / name)
    _keep(receipt)


def write_page() -> None:
    """docs/scanner-results.md from the receipts that are there."""
    from .page import page

    others = [Path("receipts") / f"scanner-{name}.json" for name in ("public", "timing")]
    public, timing = (json.loads(path.read_text()) if path.is_file() else None for path in others)
    Path("docs/scanner-results.md").write_text(page(json.loads(RECEIPT.read_text()), public, timing))
    print("written: docs/scanner-results.md")


def _keep(receipt: Mapping[str, Any]) -> None:
    RECEIPT.write_text(json.dumps(receipt, indent=1, allow_nan=False) + "\n")
    print(f"written: {RECEIPT}")
    write_page()
