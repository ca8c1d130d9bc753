"""References are trained here on clean data by the suspect's recipe, or are checkpoints that somebody else trained."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from torchbands import __version__
from torchbands.core.data import Data
from torchbands.core.digest import digest
from torchbands.core.errors import InputError
from torchbands.core.method import Spec
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Progress, Recipe
from torchbands.core.seeding import seed_of
from torchbands.core.task import Task
from torchbands.core.words import in_about, in_words
from torchbands.zoo.artifact import save_tensors, sums
from torchbands.zoo.files import only_one, sweep
from torchbands.zoo.modality import write_modality

from .forecast import forecast, pace
from .in_memory import data_of, rows_of
from .recipes import LEARNED, called, settled
from .reference_files import CARD, FORMAT, KIND, MEMBER, MODELS, WEIGHTS, write_rows
from .references import ReferenceSet, look_at
from .views import views_of

#: Clean rows that are kept with the references: the views look at every model with the same ones.
KEPT_ROWS = 1000


def train_references(
    folder: str | Path,
    recipes: Recipe | Sequence[Recipe],
    data: Any,
    class_names: Sequence[str] | None = None,
    *,
    n: int = 40,
    rows: int = 0,
    settles: bool = False,
    clean: Any = None,
    profile: str = "full",
    seed: int = 0,
    label: str = "",
    add: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> ReferenceSet:
    """Train reference models, one directory each; the same call again goes on where it stopped.

    Args:
        recipes: how they are trained; several of one network are a pool, and are taken in turn.
        data: clean labelled rows in whatever `rows_of` takes. Without `clean`, up to 1,000 of them (a fifth at most)
            are held out of every training for the views to look with.
        clean: rows for the views, which must not be among `data`.
        class_names: of the rows; by default as `rows_of` tells them.
        n: how many in all. 19 are the fewest for a p-value of 0.05, 99 for 0.01.
        rows: training rows of each reference, drawn anew for each (0: all).
        settles: whether a training that diverges or learns next to nothing is done again with a smaller rate; for a
            pool of recipes that nobody has tried on this network.
        label: what the data are, for the card.
        add: to a folder that is there: `n` references of this recipe beside those of the others.
        announce: told how long it will take, before it starts.
    """
    folder = Path(folder)
    pool = [recipes] if isinstance(recipes, Recipe) else list(recipes)
    if n < 1 or not pool:
        raise InputError("references: n is at least 1 and there is at least one recipe")
    modality = pool[0].modality
    if any(recipe.but(learner=pool[0].learner) != pool[0] for recipe in pool):
        raise InputError("references: recipes of a pool differ in their learners alone", hint="name a folder for each")
    if class_names is None:
        read = rows_of(data, modality=modality)
        data, class_names = read.data, read.class_names
    if len(class_names) != pool[0].classes:
        raise InputError(f"the recipe is for {pool[0].classes} classes, the rows have {len(class_names)}")
    data = data_of(data, modality)
    if clean is None:
        held = min(KEPT_ROWS, len(data) // 5)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed_of("views' rows", label)))
        data, clean = data[order[held:].sort().values], data[order[:held].sort().values]
    else:
        clean = data_of(clean, modality).sample(KEPT_ROWS, "views' rows", label, balanced=True)
    if len(clean) == 0 or len(data) == 0:
        raise InputError("references need clean rows to train on and clean rows to look with")
    card = _card(called(pool[0].network), _specs(pool), data, clean, modality, class_names, label)
    card |= {"seed": seed, "training_rows": rows or len(data)}
    reference_set = _start(folder, card, modality, clean, add)
    with only_one(folder, "the folder of references"):
        sweep(folder / MODELS)
        first = _first(reference_set.card["recipes"], _specs(pool)) if add else None
        if announce is not None:
            announce(_announced(reference_set, pool, data, profile, n, rows))
        for i in range(n):
            member = folder / MODELS / (f"r{first}-{i:04d}" if add else f"{i:04d}")
            if progress is not None:
                progress(i, n, "training references")
            if not (member / CARD).is_file():
                train_one(member, pool, data, reference_set, profile, seed, i, rows=rows, settles=settles, first=first)
        blank = pool[0].untrained("reference")
        network, classes = pool[0].network, pool[0].classes
        reference_set.complete(lambda: network.build(modality, classes), views_of(profile, blank), progress)
    return reference_set


def references_of(
    task: Task,
    folder: str | Path,
    *,
    n: int = 40,
    learners: Sequence[Learner] = (),
    profile: str = "full",
    seed: int = 0,
    progress: Progress | None = None,
) -> ReferenceSet:
    """References of a task's own network and recipe, looked at with its clean split."""
    rows = int(getattr(task, "rows", 0))
    whole_task = task.but(rows=0) if rows else task
    return train_references(
        folder,
        [task.recipe.but(learner=learner) for learner in (tuple(learners) or (task.learner,))],
        whole_task.load("train", seed),
        task.class_names,
        n=n,
        rows=rows,
        clean=task.load("clean", seed),
        profile=profile,
        seed=seed,
        label=task.name,
        progress=progress,
    )


def _announced(reference_set: ReferenceSet, pool: Sequence[Recipe], data: Data, profile: str, n: int, rows: int) -> str:
    """How long the trainings and the looks that are missing take, as far as that can be told."""
    left = n - sum((reference_set.folder / MODELS / f"{i:04d}" / CARD).is_file() for i in range(n))
    epochs = [getattr(recipe.learner, "epochs", None) for recipe in pool]
    known = [e for e in epochs if isinstance(e, int)]
    model = pool[0].untrained("reference")
    views = [v.detector for v in views_of(profile, model)]
    looks = sum(s for s in forecast(model, reference_set.clean, views) if s is not None)
    if left <= 0:
        return f"all {n} references are trained"
    if len(known) < len(epochs):
        return (
            f"{left} references to train by your own function, which may take as long as it likes, and to look at, "
            f"{in_about(left * looks)}; stop at any time: the same command goes on"
        )
    step = pace(model, data, gradients=True)
    one = step * (rows or len(data)) * sum(known) / len(known)
    return (
        f"{left} references to train and to look at: {in_about(left * (one + looks))} ({in_words(one + looks)} "
        "each); stop at any time: the same command goes on"
    )


def _card(
    architecture: Any,
    recipes: Sequence[Spec],
    data: Data,
    clean: Data,
    modality: Modality,
    class_names: Sequence[str],
    label: str,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "torchbands": __version__,
        "architecture": architecture,
        "modality": modality.spec(),
        "classes": len(class_names),
        "class_names": list(class_names),
        "recipes": list(recipes),
        "training_rows": len(data),
        "training_sha256": digest(data),
        "views_sha256": digest(clean),
        "data": label,
        "seed": 0,
    }


def _start(folder: Path, card: dict[str, Any], modality: Modality, clean: Data, add: bool = False) -> ReferenceSet:
    if (folder / CARD).is_file():
        old = ReferenceSet.load(folder)
        known, asked = old.card["recipes"], card["recipes"]
        if add or known[: len(asked)] == asked:  # recipes that were added since are none of this call's business
            card["recipes"] = known
        if add:
            card |= {k: old.card[k] for k in ("seed", "training_rows", "architecture") if k in old.card}
        differs = [k for k in card if k not in ("torchbands",) and old.card.get(k) != json.loads(json.dumps(card[k]))]
        if differs:
            raise InputError(
                f"{folder} holds references of another recipe or of other data: {', '.join(differs)} differ",
                hint="name a new folder, or give the settings and the data of the first call to go on with it"
                + ("; with --add, another recipe is added to it" if differs == ["recipes"] else ""),
            )
        if add and _first(known, asked) == len(known):
            KIND.write_card(folder, {**old.card, "recipes": [*known, *asked]})
            return ReferenceSet.load(folder)
        return old
    if add:
        raise InputError(f"{folder} holds no references to add to", hint="train the first ones without --add")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} exists and holds no references", hint="name a new folder")
    with KIND.new(folder) as at:
        (at / MODELS).mkdir()
        write_modality(modality, at)
        card["rows"] = write_rows(at, clean)
        KIND.write_card(at, card)
    return ReferenceSet.load(folder)


def _specs(pool: Sequence[Recipe]) -> list[Spec]:
    found: list[Spec] = json.loads(json.dumps([recipe.learner.spec() for recipe in pool]))
    return found


def _first(known: Sequence[Any], asked: Sequence[Any]) -> int:
    """Where recipes stand among those of a card; behind them where they do not."""
    places = range(len(known) - len(asked) + 1)
    return next((i for i in places if list(known[i : i + len(asked)]) == list(asked)), len(known))


def train_one(
    member: Path,
    pool: Sequence[Recipe],
    data: Data,
    reference_set: ReferenceSet,
    profile: str,
    seed: int,
    i: int,
    *,
    rows: int = 0,
    settles: bool = False,
    first: int | None = None,
) -> None:
    """Train the i-th reference; `first`: where the recipes stand in the card, if they were added to others."""
    started = time.perf_counter()
    at = i % len(pool)
    identity = seed_of("reference", seed, i) if first is None else seed_of("reference", seed, "added", first, i)
    drawn = data
    if rows and rows < len(data):
        drawn = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(identity))[:rows]]

    def fit(learner: Learner) -> Model:
        recipe = pool[at].but(learner=learner)
        return recipe.fit(recipe.untrained("reference", identity), drawn, seed=identity)

    def learns(model: Model) -> bool:
        known = _accuracy(model, reference_set.clean)
        return known > min(0.99, LEARNED / reference_set.classes) or reference_set.classes < 3

    learner = pool[at].learner
    model = settled(learner, fit, learns) if settles else fit(learner)
    _keep(member, model, reference_set, profile, (first or 0) + at, identity, time.perf_counter() - started)


def add_checkpoint(reference_set: ReferenceSet, model: Model, profile: str, name: str) -> bool:
    """Keep a clean model that somebody else trained as a reference; whether it is new.

    Raises InputError where it has another architecture or fewer classes than the others.
    """
    if model.classes != reference_set.classes:
        raise InputError(f"{name} has {model.classes} classes, the references have {reference_set.classes}")
    mine = {k: tuple(t.shape) for k, t in model.module.state_dict().items()}
    if len(reference_set) and reference_set.shapes() != mine:
        raise InputError(f"{name} has another architecture than the references in {reference_set.folder}")
    made = hashlib.sha256()
    for key, tensor in sorted(model.module.state_dict().items()):
        made.update(key.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    member = reference_set.folder / MODELS / f"own-{made.hexdigest()[:16]}"
    if (member / CARD).is_file():
        return False
    known, own = list(reference_set.card["recipes"]), {"own checkpoints": True}
    if own not in known:
        known.append(own)
        KIND.write_card(reference_set.folder, {**reference_set.card, "recipes": known})
    _keep(member, model, reference_set, profile, known.index(own), 0, 0.0)
    return True


def start_empty(
    folder: Path, architecture: Any, data: Data, modality: Modality, class_names: Sequence[str], label: str
) -> ReferenceSet:
    """A folder without references, for models that were trained elsewhere: it keeps the rows that views look with."""
    clean = data.sample(KEPT_ROWS, "views' rows", label, balanced=True)
    return _start(folder, _card(architecture, [], data, clean, modality, class_names, label), modality, clean)


def _accuracy(model: Model, clean: Data) -> float:
    return float((model.logits(clean.x).argmax(1) == clean.y).float().mean())


def _keep(
    member: Path, model: Model, reference_set: ReferenceSet, profile: str, recipe: int, identity: int, seconds: float
) -> None:
    with MEMBER.new(member) as at:
        save_tensors(model.module.state_dict(), at / WEIGHTS)
        weights = sums(at)[WEIGHTS]
        look_at(model, reference_set.clean, views_of(profile, model), at, weights)
        card = {
            "recipe": recipe,
            "seed": identity,
            "accuracy": _accuracy(model, reference_set.clean),
            "seconds": round(seconds, 2),
            "sha256": weights,
        }
        MEMBER.write_card(at, card)
