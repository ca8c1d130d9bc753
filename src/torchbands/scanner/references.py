"""Reference models: trained here on clean data by the suspect's recipe, kept with what every view saw of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from torchbands import __version__
from torchbands.core.data import Data, Pixels, whole
from torchbands.core.devices import default_device
from torchbands.core.digest import digest
from torchbands.core.errors import BandsError, InputError
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Learner, Network, Progress
from torchbands.core.registry import build
from torchbands.core.seeding import seed_of, seeded
from torchbands.core.task import Task
from torchbands.core.words import in_words
from torchbands.zoo.files import Kind, new_directory, only_one, read_text, sha256, sweep, write_json
from torchbands.zoo.files import digest as digest_of
from torchbands.zoo.modality import read_modality, write_modality

from .forecast import forecast, pace
from .in_memory import data_of, rows_of
from .pairs import ByPair, ask, forward_of, missing, nothing_asked
from .recipes import LEARNED, Trains, settled
from .view_cache import ASKED, SEEN, How, Numbers, read, write
from .views import View, look, views_of

TOKENIZER = "tokenizer.json"
CARD, ROWS, MODELS, WEIGHTS = "card.json", "rows", "models", "weights.safetensors"
FORMAT = 1
#: References are never replaced as a whole, only added to; of a member, what a killed training left of it.
KIND = Kind("a folder of references", CARD, frozenset(), lambda card: False)
MEMBER = Kind("a reference model", CARD, frozenset({CARD, WEIGHTS, SEEN}))
SUM = "card_sha256"
#: Clean rows that are kept with the references: the views look at every model with the same ones.
KEPT_ROWS = 1000
#: The references' own views are drawn with this seed, and so is the suspect's.
VIEW_SEED = 0


@dataclass(frozen=True)
class Recipe:
    """How references are made.

    Attributes:
        fresh: a new untrained module; drawn from torch's global generator, which is seeded around the call.
        architecture: what to call it in the card: a network's spec, or "package.module:factory".
        learners: one training recipe, or several to pool over; they are taken in turn.
        rows: training rows of each reference, drawn anew for each (0: all).
        settles: whether a training that diverges or learns next to nothing is done again with a smaller rate; for a
            pool of recipes that nobody has tried on this network.
    """

    fresh: Callable[[], nn.Module]
    architecture: Any
    learners: tuple[Trains, ...]
    rows: int = 0
    settles: bool = False


@dataclass(frozen=True)
class ReferenceSet:
    """A directory of reference models. `clean` are the rows that views look with."""

    folder: Path
    card: Mapping[str, Any]
    clean: Data
    modality: Modality

    @classmethod
    def load(cls, folder: str | Path) -> ReferenceSet:
        """Raises InputError where the folder is no reference set, BandsError where it is damaged."""
        folder = Path(folder)
        path = folder / CARD
        if not path.is_file():
            raise InputError(
                f"{folder} holds no reference models (no {CARD})",
                hint="train them: bands refs train --like SUSPECT --data CLEAN -n 40 -o refs/",
            )
        try:
            card = json.loads(read_text(path))
            if SUM in card and card[SUM] != digest_of(card, SUM):  # cards of older versions have none
                raise BandsError(f"{path} was altered: its checksum does not fit", hint="train the references again")
            if card["format"] != FORMAT:
                raise BandsError(f"{folder} has format {card['format']!r}, this torchbands reads format {FORMAT}")
            modality = read_modality(card["modality"], folder, folder / CARD)
            rows = _read_rows(folder, card["rows"])
            if len(card["class_names"]) != card["classes"] or not set(rows.y.tolist()) <= set(range(card["classes"])):
                raise ValueError("the number of classes, their names and the labels of the rows do not fit")
            return cls(folder, card, rows, modality)
        except (ValueError, KeyError, TypeError, RuntimeError, RecursionError, OSError, SafetensorError) as error:
            raise BandsError(f"{path} is damaged ({error})", hint="train the references again") from None

    def __len__(self) -> int:
        return len(self.members())

    def members(self) -> list[Path]:
        """The finished reference models, in order; what a killed training left under a temporary name is none."""
        found = (p.parent for p in (self.folder / MODELS).glob(f"*/{CARD}"))
        every = sorted(member for member in found if not member.name.startswith("."))
        by_weights: dict[str, Path] = {}
        for member in every:
            if (same := by_weights.setdefault(str(_card(member)["sha256"]), member)) is not member:
                raise _damaged(member, f"it is {same.name} once more, and one model counts once")
        return every

    def unsummed(self) -> int:
        """Cards without a checksum, as older versions wrote them. Weights, rows and views have always had theirs."""
        return sum(SUM not in card for card in (self.card, *map(_card, self.members())))

    @property
    def classes(self) -> int:
        return int(self.card["classes"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.card["class_names"])

    def recipes(self) -> list[int]:
        """Which of the card's recipes each reference was trained by."""
        return [int(_card(member).get("recipe", 0)) for member in self.members()]

    def fresh(self) -> Callable[[], nn.Module] | None:
        """Builds the references' architecture where the card names a network of torchbands; imports nothing else."""
        spec = self.card["architecture"]
        if not isinstance(spec, Mapping):
            return None
        network = build(spec, "network", origin=self.folder / CARD)
        assert isinstance(network, Network)
        return lambda: network.build(self.modality, self.classes)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the references' weights; empty where there are none, or where they are not all alike."""
        every = [_shapes(member) for member in self.members()]
        return every[0] if every and all(shapes == every[0] for shapes in every) else {}

    def model(self, member: Path, fresh: Callable[[], nn.Module], how: How | None = None) -> Model:
        """A reference as a Model; `fresh` builds its architecture, `how` says where it runs and in which precision.

        Raises BandsError where its weights were altered or are damaged.
        """
        path = member / WEIGHTS
        if not path.is_file() or sha256(path) != _card(member)["sha256"]:
            raise _damaged(member, f"{WEIGHTS} is missing or was altered")
        with seeded("reference"):
            module = fresh()
        module.load_state_dict(load_file(member / WEIGHTS))
        how = how or How.here()
        return Model(module.to(how.device), self.modality, self.classes, precision=how.precision)

    def numbers(self, view: View, how: How | None = None, *, asked: bool = False) -> Tensor | None:
        """(n, ...) what a view saw of every reference, NaN where it declined; None where no reference has it.

        Args:
            how: numbers made on this device and in this precision alone.
            asked: of pairs of classes that the references were asked about, in place of those of their own choice.
        """
        key = (how or How.here()).key(view)
        rows = [_seen(member).tensors.get(_asked(key) if asked else key) for member in self.members()]
        known = [r for r in rows if r is not None and r.numel()]
        if not known:
            return None
        empty = torch.full_like(known[0], torch.nan)
        return torch.stack([r if r is not None and r.shape == empty.shape else empty for r in rows])

    def pairs(self, view: View, how: How | None = None) -> tuple[Tensor, Tensor] | None:
        """(n, K, K) what a view saw in pairs of the references' own choice, and in those that they were asked about."""
        own = self.numbers(view, how) if isinstance(view.detector, ByPair) else None
        if own is None:
            return None
        asked = self.numbers(view, how, asked=True)
        return own, nothing_asked(own) if asked is None else asked

    def chunks(self, views: Sequence[View], how: How | None = None) -> list[int]:
        """The numbers of rows that went through at once when these views looked."""
        keys = {(how or How.here()).key(v) for v in views}
        return sorted({n for member in self.members() for key, n in _seen(member).chunks.items() if key in keys})

    def has(self, views: Sequence[View], how: How | None = None) -> bool:
        """Whether every reference was looked at by every view (or was declined by it)."""
        keys = [(how or How.here()).key(v) for v in views]
        return all(key in seen.tensors for seen in map(_seen, self.members()) for key in keys)

    def complete(
        self,
        fresh: Callable[[], nn.Module],
        views: Sequence[View],
        progress: Progress | None = None,
        how: How | None = None,
    ) -> None:
        """Let views look at the references that they have not seen yet, and at the pairs of classes that any of the
        references puts forward."""
        members = self.members()
        for at, member in enumerate(members):
            if progress is not None:
                progress(at, len(members), "looking at the references")
            self.complete_one(member, fresh, views, how)
        for view in views:
            if (tables := self.pairs(view, how)) is not None:
                self.ask(fresh, view, forward_of(tables[0]), progress, how)

    def complete_one(
        self, member: Path, fresh: Callable[[], nn.Module], views: Sequence[View], how: How | None = None
    ) -> None:
        """Let views look at one reference."""
        how, known = how or How.here(), _seen(member).tensors
        absent = [v for v in views if how.key(v) not in known]
        if absent:
            _look(self.model(member, fresh, how), self.clean, absent, member)

    def unasked(self, view: View, wanted: Tensor, how: How | None = None) -> bool:
        """Whether some of the wanted (K, K) pairs were searched in no way in some reference."""
        tables = self.pairs(view, how)
        return tables is not None and any(len(missing(*both, wanted)) for both in zip(*tables, strict=True))

    def ask(
        self,
        fresh: Callable[[], nn.Module],
        view: View,
        wanted: Tensor,
        progress: Progress | None = None,
        how: How | None = None,
        only: Sequence[Path] | None = None,
    ) -> None:
        """Let a view search the wanted (K, K) pairs in every reference (or `only` some) where it has not yet."""
        how, members = how or How.here(), self.members() if only is None else list(only)
        key, rows = how.key(view), view.rows(self.clean, VIEW_SEED)
        assert isinstance(view.detector, ByPair)
        for at, member in enumerate(members):
            if progress is not None:
                progress(at, len(members), "asking the references about pairs")
            seen = _seen(member)
            own = seen.tensors.get(key)
            if own is None or own.shape != wanted.shape:
                continue
            before = seen.tensors.get(_asked(key), nothing_asked(own))
            if len(missing(own, before, wanted)) == 0:
                continue
            answers = ask(view.detector, self.model(member, fresh, how), rows, own, before, wanted, seed=VIEW_SEED)
            write(member, Numbers({**seen.tensors, _asked(key): answers}, seen.chunks), _card(member)["sha256"])

    def summary(self) -> dict[str, Any]:
        """For a report: how many, of which recipe, how good."""
        cards = [_card(m) for m in self.members()]
        accuracy = [c["accuracy"] for c in cards]
        return {
            "references": len(cards),
            "architecture": self.card["architecture"],
            "recipes": self.card["recipes"],
            "per_recipe": [sum(c.get("recipe", 0) == i for c in cards) for i in range(len(self.card["recipes"]))],
            "data": self.card["data"],
            "training_rows": self.card["training_rows"],
            "accuracy": [round(min(accuracy), 4), round(max(accuracy), 4)] if accuracy else [],
            "seconds": round(sum(c["seconds"] for c in cards), 1),
        }


def train_references(
    folder: str | Path,
    recipe: Recipe,
    data: Any,
    modality: Modality | None = None,
    class_names: Sequence[str] | None = None,
    *,
    n: int = 40,
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
        data: clean labelled rows in whatever `rows_of` takes. Without `clean`, up to 1,000 of them (a fifth at most)
            are held out of every training for the views to look with.
        clean: rows for the views, which must not be among `data`.
        modality, class_names: of the rows; by default as `rows_of` tells them.
        n: how many in all. 19 are the fewest for a p-value of 0.05, 99 for 0.01.
        label: what the data are, for the card.
        add: to a folder that is there: `n` references of this recipe beside those of the others.
        announce: told how long it will take, before it starts.
    """
    folder = Path(folder)
    if n < 1 or not recipe.learners:
        raise InputError("references: n is at least 1 and there is at least one recipe")
    if modality is None or class_names is None:
        rows = rows_of(data, modality=modality, class_names=class_names)
        data, modality, class_names = rows.data, rows.modality, rows.class_names
    data = data_of(data, modality)
    if clean is None:
        held = min(KEPT_ROWS, len(data) // 5)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed_of("views' rows", label)))
        data, clean = data[order[held:].sort().values], data[order[:held].sort().values]
    else:
        clean = data_of(clean, modality).sample(KEPT_ROWS, "views' rows", label, balanced=True)
    if len(clean) == 0 or len(data) == 0:
        raise InputError("references need clean rows to train on and clean rows to look with")
    reference_set = _start(folder, recipe, data, clean, modality, class_names, seed, label, add)
    with only_one(folder, "the folder of references"):
        sweep(folder / MODELS)
        first = _first(reference_set.card["recipes"], _specs(recipe)) if add else None
        if announce is not None:
            announce(_announced(reference_set, recipe, data, profile, n))
        for i in range(n):
            member = folder / MODELS / (f"r{first}-{i:04d}" if add else f"{i:04d}")
            if progress is not None:
                progress(i, n, "training references")
            if not (member / CARD).is_file():
                train_one(member, recipe, data, reference_set, profile, seed, i, first=first)
        reference_set.complete(recipe.fresh, _views(reference_set, recipe, profile), progress)
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
        Recipe(
            lambda: task.network.build(task.modality, task.classes),
            task.network.spec(),
            tuple(learners) or (task.learner,),
            rows,
        ),
        whole_task.load("train", seed),
        task.modality,
        task.class_names,
        n=n,
        clean=task.load("clean", seed),
        profile=profile,
        seed=seed,
        label=task.name,
        progress=progress,
    )


def _announced(reference_set: ReferenceSet, recipe: Recipe, data: Data, profile: str, n: int) -> str:
    """How long the trainings and the looks that are missing take, as far as that can be told."""
    left = n - sum((reference_set.folder / MODELS / f"{i:04d}" / CARD).is_file() for i in range(n))
    epochs = [getattr(learner, "epochs", None) for learner in recipe.learners]
    known = [e for e in epochs if isinstance(e, int)]
    with seeded("reference"):
        model = Model(recipe.fresh().to(default_device()), reference_set.modality, reference_set.classes)
    views = [v.detector for v in views_of(profile, model)]
    looks = sum(s for s in forecast(model, reference_set.clean, views) if s is not None)
    if left <= 0:
        return f"all {n} references are trained"
    if len(known) < len(epochs):
        return (
            f"{left} references to train by your own function, which may take as long as it likes, and to look at, "
            f"about {in_words(left * looks)}; stop at any time: the same command goes on"
        )
    step = pace(model, data, gradients=True)
    one = step * (recipe.rows or len(data)) * sum(known) / len(known)
    return (
        f"{left} references to train and to look at: about {in_words(left * (one + looks))} ({in_words(one + looks)} "
        "each); stop at any time: the same command goes on"
    )


def _views(reference_set: ReferenceSet, recipe: Recipe, profile: str) -> tuple[View, ...]:
    with seeded("reference"):
        module = recipe.fresh()
    return views_of(profile, Model(module, reference_set.modality, reference_set.classes))


def _start(
    folder: Path,
    recipe: Recipe,
    data: Data,
    clean: Data,
    modality: Modality,
    class_names: Sequence[str],
    seed: int,
    label: str,
    add: bool = False,
) -> ReferenceSet:
    card = {
        "format": FORMAT,
        "torchbands": __version__,
        "architecture": recipe.architecture,
        "modality": modality.spec(),
        "classes": len(class_names),
        "class_names": list(class_names),
        "recipes": _specs(recipe),
        "training_rows": recipe.rows or len(data),
        "training_sha256": digest(data),
        "views_sha256": digest(clean),
        "data": label,
        "seed": seed,
    }
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
            _write_card(folder, {**old.card, "recipes": [*known, *asked]})
            return ReferenceSet.load(folder)
        return old
    if add:
        raise InputError(f"{folder} holds no references to add to", hint="train the first ones without --add")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} exists and holds no references", hint="name a new folder")
    with new_directory(folder, KIND) as at:
        (at / MODELS).mkdir()
        write_modality(modality, at)
        card["rows"] = _write_rows(at, clean)
        _write_card(at, card)
    return ReferenceSet.load(folder)


def _specs(recipe: Recipe) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps([learner.spec() for learner in recipe.learners]))
    return found


def _first(known: Sequence[Any], asked: Sequence[Any]) -> int:
    """Where recipes stand among those of a card; behind them where they do not."""
    places = range(len(known) - len(asked) + 1)
    return next((i for i in places if list(known[i : i + len(asked)]) == list(asked)), len(known))


def train_one(
    member: Path,
    recipe: Recipe,
    data: Data,
    reference_set: ReferenceSet,
    profile: str,
    seed: int,
    i: int,
    *,
    first: int | None = None,
) -> None:
    """Train the i-th reference; `first`: where the learners stand in the card, if they were added to others."""
    started = time.perf_counter()
    at = i % len(recipe.learners)
    identity = seed_of("reference", seed, i) if first is None else seed_of("reference", seed, "added", first, i)
    drawn = data
    if recipe.rows and recipe.rows < len(data):
        drawn = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(identity))[: recipe.rows]]

    def fit(learner: Trains) -> Model:
        with seeded("reference", identity):
            module = recipe.fresh()
        made = Model(module.to(default_device()), reference_set.modality, reference_set.classes)
        learner.fit(made, drawn, seed=identity)
        return made

    def learns(model: Model) -> bool:
        return (
            _accuracy(model, reference_set.clean) > min(0.99, LEARNED / reference_set.classes)
            or reference_set.classes < 3
        )

    learner = recipe.learners[at]
    model = settled(learner, fit, learns) if recipe.settles else fit(learner)
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
        _write_card(reference_set.folder, {**reference_set.card, "recipes": known})
    _keep(member, model, reference_set, profile, known.index(own), 0, 0.0)
    return True


def start_empty(
    folder: Path, architecture: Any, data: Data, modality: Modality, class_names: Sequence[str], label: str
) -> ReferenceSet:
    """A folder without references, for models that were trained elsewhere: it keeps the rows that views look with."""
    recipe = Recipe(nn.Identity, architecture, ())
    clean = data.sample(KEPT_ROWS, "views' rows", label, balanced=True)
    return _start(folder, recipe, data, clean, modality, class_names, 0, label)


def _accuracy(model: Model, clean: Data) -> float:
    return float((model.logits(clean.x).argmax(1) == clean.y).float().mean())


def _keep(
    member: Path, model: Model, reference_set: ReferenceSet, profile: str, recipe: int, identity: int, seconds: float
) -> None:
    with new_directory(member, MEMBER) as at:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in model.module.state_dict().items()}, at / WEIGHTS
        )
        _look(model, reference_set.clean, views_of(profile, model), at, weights := sha256(at / WEIGHTS))
        card = {
            "recipe": recipe,
            "seed": identity,
            "accuracy": _accuracy(model, reference_set.clean),
            "seconds": round(seconds, 2),
            "sha256": weights,
        }
        _write_card(at, card)


def _look(model: Model, clean: Data, views: Sequence[View], member: Path, weights: str = "") -> None:
    """Let views look at a reference; the sha256 of its weights is read from its card where there is one."""
    weights = weights or _card(member)["sha256"]
    seen, how = read(member, weights), How.of(model)
    tensors, chunks = dict(seen.tensors), dict(seen.chunks)
    for line in look(model, clean, views, seed=VIEW_SEED):
        numbers, key = line.numbers(), how.key(line.view)
        tensors[key] = torch.zeros(0) if numbers is None else numbers
        chunks[key] = model.chunk
    write(member, Numbers(tensors, chunks), weights)


def _seen(member: Path) -> Numbers:
    return read(member, _card(member)["sha256"])


def _asked(key: str) -> str:
    return f"{key}/{ASKED}"


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    write_json(folder / CARD, {**card, SUM: digest_of(card, SUM)})


def _card(member: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(read_text(member / CARD))
        if not {"accuracy", "seconds", "sha256"} <= set(card):
            raise ValueError(f"{CARD} is incomplete")
        if SUM in card and card[SUM] != digest_of(card, SUM):
            raise ValueError(f"{CARD} was altered: its checksum does not fit")
        return card
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise _damaged(member, str(error)) from None


def _shapes(member: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(member / WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(member, f"{WEIGHTS}: {error}") from None


def _damaged(member: Path, why: str) -> BandsError:
    return BandsError(
        f"the reference model {member} is damaged ({why})",
        hint="remove its folder; the command that trained the references makes it again",
    )


def _write_rows(folder: Path, clean: Data) -> dict[str, Any]:
    x = clean.x.bytes if isinstance(clean.x, Pixels) else whole(clean.x)
    said: dict[str, Any] = {"n": len(clean)}
    tensors = {"y": clean.y.contiguous()}
    if isinstance(x, Tensor):
        as_bytes = (x * 255).round() if x.is_floating_point() else x.float()
        exact = x.is_floating_point() and bool(((as_bytes / 255 - x).abs() < 1e-6).all()) and x.numel() > 0
        exact = exact and float(x.min()) >= 0 and float(x.max()) <= 1 and x.ndim == 4
        tensors["x"] = as_bytes.to(torch.uint8).contiguous() if exact else x.contiguous()
    else:
        kind = "bytes" if isinstance(x[0], bytes) else "text"
        write_json(folder / f"{ROWS}.json", {kind: [r.hex() if isinstance(r, bytes) else r for r in x]})
        said["json_sha256"] = sha256(folder / f"{ROWS}.json")
    save_file(tensors, folder / f"{ROWS}.safetensors")
    return {**said, "sha256": sha256(folder / f"{ROWS}.safetensors")}


def _read_rows(folder: Path, said: Mapping[str, Any]) -> Data:
    path = folder / f"{ROWS}.safetensors"
    if not path.is_file() or sha256(path) != said["sha256"]:
        raise BandsError(f"{path} is missing or was altered", hint="train the references again")
    tensors = load_file(path)
    if "x" in tensors:
        x: Any = tensors["x"]
        return Data(x.float().div_(255.0) if x.dtype == torch.uint8 else x, tensors["y"])
    path = folder / f"{ROWS}.json"
    if not path.is_file() or sha256(path) != said.get("json_sha256", sha256(path)):
        raise BandsError(f"{path} is missing or was altered", hint="train the references again")
    rows = json.loads(path.read_text("utf-8"))
    return Data(rows["text"] if "text" in rows else [bytes.fromhex(r) for r in rows["bytes"]], tensors["y"])
