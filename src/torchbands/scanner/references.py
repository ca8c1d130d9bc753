"""Reference models: kept with what every view saw of them, and looked at by the views that come later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchbands.core.data import Data
from torchbands.core.errors import InputError
from torchbands.core.modality import Modality
from torchbands.core.model import Model
from torchbands.core.recipe import Network, Progress
from torchbands.core.registry import build
from torchbands.core.seeding import seeded
from torchbands.zoo.artifact import SUM
from torchbands.zoo.modality import read_modality

from .attempt import Attempt, Failures
from .pairs import ByPair, ask, forward_of, missing, nothing_asked
from .reference_files import CARD, KIND, MEMBER, MODELS, WEIGHTS, read_rows, seen_of, shapes_of
from .view_cache import ASKED, How, Numbers, read, write
from .views import View, look

#: The references' own views are drawn with this seed, and so is the suspect's.
VIEW_SEED = 0


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
            card = KIND.verified(folder)
            modality, rows = read_modality(card["modality"], folder, path), read_rows(folder)
            if len(card["class_names"]) != card["classes"] or not set(rows.y.tolist()) <= set(range(card["classes"])):
                raise ValueError("the number of classes, their names and the labels of the rows do not fit")
            return cls(folder, card, rows, modality)
        except (ValueError, KeyError, TypeError, RuntimeError, RecursionError, OSError) as error:
            raise KIND.damaged(folder, f"{CARD}: {error}") from None

    def __len__(self) -> int:
        return len(self.members())

    def members(self) -> list[Path]:
        """The finished reference models, in order; what a killed training left under a temporary name is none."""
        found = (p.parent for p in (self.folder / MODELS).glob(f"*/{CARD}"))
        every = sorted(member for member in found if not member.name.startswith("."))
        by_weights: dict[str, Path] = {}
        for member in every:
            if (same := by_weights.setdefault(str(MEMBER.read_card(member)["sha256"]), member)) is not member:
                raise MEMBER.damaged(member, f"it is {same.name} once more, and one model counts once")
        return every

    def unsummed(self) -> int:
        """Cards without a checksum, as older versions wrote them. Weights, rows and views have always had theirs."""
        return sum(SUM not in card for card in (self.card, *map(MEMBER.read_card, self.members())))

    @property
    def classes(self) -> int:
        return int(self.card["classes"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.card["class_names"])

    def recipes(self) -> list[int]:
        """Which of the card's recipes each reference was trained by."""
        return [int(MEMBER.read_card(member).get("recipe", 0)) for member in self.members()]

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
        every = [shapes_of(member) for member in self.members()]
        return every[0] if every and all(shapes == every[0] for shapes in every) else {}

    def model(self, member: Path, fresh: Callable[[], nn.Module], how: How | None = None) -> Model:
        """A reference as a Model; `fresh` builds its architecture, `how` says where it runs and in which precision.

        Raises BandsError where its weights were altered or are damaged.
        """
        MEMBER.verified(member)
        with seeded("reference"):
            module = fresh()
        module.load_state_dict(MEMBER.tensors(member, WEIGHTS))
        how = how or How.here()
        return Model(module.to(how.device), self.modality, self.classes, precision=how.precision)

    def numbers(self, view: View, how: How | None = None, *, asked: bool = False) -> Tensor | None:
        """(n, ...) what a view saw of every reference, NaN where it declined; None where no reference has it.

        Args:
            how: numbers made on this device and in this precision alone.
            asked: of pairs of classes that the references were asked about, in place of those of their own choice.
        """
        key = (how or How.here()).key(view)
        rows = [seen_of(member).tensors.get(_asked(key) if asked else key) for member in self.members()]
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
        return sorted({n for member in self.members() for key, n in seen_of(member).chunks.items() if key in keys})

    def has(self, views: Sequence[View], how: How | None = None) -> bool:
        """Whether every reference was looked at by every view (or was declined by it)."""
        keys = [(how or How.here()).key(v) for v in views]
        return all(key in seen.tensors for seen in map(seen_of, self.members()) for key in keys)

    def complete(
        self,
        fresh: Callable[[], nn.Module],
        views: Sequence[View],
        progress: Progress | None = None,
        how: How | None = None,
    ) -> Failures:
        """Let views look at the references that they have not seen yet, and at the pairs of classes that any of the
        references puts forward. Gives back what failed; it is tried again the next time."""
        members, failures = self.members(), Failures()
        for at, member in enumerate(members):
            if progress is not None:
                progress(at, len(members), "looking at the references")
            failures.add(self.complete_one(member, fresh, views, how))
        for view in views:
            if (tables := self.pairs(view, how)) is not None:
                failures.add(self.ask(fresh, view, forward_of(tables[0]), progress, how))
        return failures

    def complete_one(
        self, member: Path, fresh: Callable[[], nn.Module], views: Sequence[View], how: How | None = None
    ) -> Failures:
        """Let views look at one reference. Gives back what failed."""
        how, known = how or How.here(), seen_of(member).tensors
        absent = [v for v in views if how.key(v) not in known]
        return look_at(self.model(member, fresh, how), self.clean, absent, member) if absent else Failures()

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
    ) -> Failures:
        """Let a view search the wanted (K, K) pairs in every reference (or `only` some) where it has not yet. Gives
        back what failed."""
        failures = Failures()
        how, members = how or How.here(), self.members() if only is None else list(only)
        key, rows = how.key(view), view.rows(self.clean, VIEW_SEED)
        assert isinstance(view.detector, ByPair)
        for at, member in enumerate(members):
            if progress is not None:
                progress(at, len(members), "asking the references about pairs")
            seen = seen_of(member)
            own = seen.tensors.get(key)
            if own is None or own.shape != wanted.shape:
                continue
            before = seen.tensors.get(_asked(key), nothing_asked(own))
            if len(missing(own, before, wanted)) == 0:
                continue
            model = self.model(member, fresh, how)
            with Attempt() as tried:
                answers = ask(view.detector, model, rows, own, before, wanted, seed=VIEW_SEED)
            if tried.reason:
                failures.note(view.name, tried.reason)
                continue
            weights = MEMBER.read_card(member)["sha256"]
            write(member, Numbers({**seen.tensors, _asked(key): answers}, seen.chunks), weights)
        return failures

    def summary(self) -> dict[str, Any]:
        """For a report: how many, of which recipe, how good."""
        cards = [MEMBER.read_card(m) for m in self.members()]
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


def look_at(model: Model, clean: Data, views: Sequence[View], member: Path, weights: str = "") -> Failures:
    """Let views look at a reference; the sha256 of its weights is read from its card where there is one.

    That a view declined is kept. What failed is given back and not kept, for another time may have more memory.
    """
    weights = weights or MEMBER.read_card(member)["sha256"]
    seen, how = read(member, weights), How.of(model)
    tensors, chunks, failures = dict(seen.tensors), dict(seen.chunks), Failures()
    for line in look(model, clean, views, seed=VIEW_SEED):
        if line.failed:
            failures.note(line.view.name, line.reason)
            continue
        numbers, key = line.numbers(), how.key(line.view)
        tensors[key] = torch.zeros(0) if numbers is None else numbers
        chunks[key] = model.chunk
    write(member, Numbers(tensors, chunks), weights)
    return failures


def _asked(key: str) -> str:
    return f"{key}/{ASKED}"
