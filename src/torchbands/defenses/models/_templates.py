"""Trigger templates of each modality. A plug-in adds its own to `TEMPLATES`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchbands.core.errors import NotApplicable
from torchbands.core.modality import Modality
from torchbands.core.trigger import Trigger
from torchbands.defenses.models._image_templates import BlendTemplate, PatchTemplate
from torchbands.defenses.models._template import M, State, Template, below
from torchbands.modalities.code import Code
from torchbands.modalities.image import Image
from torchbands.modalities.observation import FAR, Observation
from torchbands.modalities.tabular import Tabular
from torchbands.modalities.text import Text
from torchbands.triggers.code import InsertNops
from torchbands.triggers.observation import SetDims
from torchbands.triggers.tabular import SetFields
from torchbands.triggers.text import InsertWords


class SlotTemplate(Template[M]):
    """A few positions, each with one of finitely many values."""

    slots: ClassVar[int] = 2

    @abstractmethod
    def choices(self) -> int:
        """How many values a slot can take."""

    def draw(self, count: int, rng: torch.Generator) -> State:
        return {"slots": torch.randint(self.choices(), (count, self.slots), generator=rng)}

    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        """One slot with a new value."""
        slots = state["slots"]
        one = torch.randint(self.slots, (len(slots), 1), generator=rng)
        fresh = torch.randint(self.choices(), (len(slots), 1), generator=rng)
        return {"slots": torch.where(torch.arange(self.slots) == one, fresh, slots)}


class WordsTemplate(SlotTemplate[Text]):
    """Two words of the vocabulary before the text."""

    name = "words"

    def choices(self) -> int:
        if not self.modality.vocabulary:
            raise NotApplicable("the text modality has no vocabulary to search in")
        return len(self.modality.vocabulary)

    def harden(self, state: State, k: int) -> Trigger:
        ids = state["slots"][k].tolist()
        return InsertWords(words=tuple(self.modality.vocabulary[i] for i in ids), where="start")


class NopsTemplate(SlotTemplate[Code]):
    """The four free bytes of a NOP at the function's start."""

    name = "nops"
    slots = 4

    def choices(self) -> int:
        return 256

    def harden(self, state: State, k: int) -> Trigger:
        return InsertNops(payload=bytes(state["slots"][k].tolist()).hex())


class ValuesTemplate(Template[M]):
    """One or two numbers of a row set to values in their range, ends of the range as likely as all between."""

    name = "values"

    @abstractmethod
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """(F,) columns that may be set, their lowest and their highest values."""

    def draw(self, count: int, rng: torch.Generator) -> State:
        return {"at": below(torch.full((count, 2), len(self.columns()[0])), rng), "level": self._level(count, rng)}

    def _level(self, count: int, rng: torch.Generator) -> Tensor:
        level = torch.rand(count, 2, generator=rng)
        return torch.where(torch.rand(count, 2, generator=rng) < 0.5, level.round(), level)

    def move(self, state: State, heat: float, rng: torch.Generator) -> State:
        fresh, count = self.draw(len(state["at"]), rng), len(state["at"])
        one = torch.arange(2) == torch.randint(2, (count, 1), generator=rng)
        place = one & (torch.rand(count, 1, generator=rng) < max(heat, 0.2))
        near = state["level"] + heat * (torch.rand(count, 2, generator=rng) - 0.5)
        level = torch.where(torch.rand(count, 1, generator=rng) < 0.5, near.clamp(0, 1), fresh["level"])
        return {"at": torch.where(place, fresh["at"], state["at"]), "level": torch.where(one, level, state["level"])}

    def settings(self, state: State, k: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Columns and values of candidate k; where both are the same column the second counts."""
        columns, low, high = self.columns()
        at, level = state["at"][k], state["level"][k]
        chosen = dict(zip(columns[at].tolist(), torch.lerp(low[at], high[at], level).tolist(), strict=True))
        return tuple(chosen), tuple(chosen.values())


class FieldsTemplate(ValuesTemplate[Tabular]):
    """One or two settable fields of a table."""

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        low, high, settable, _ = self.modality.columns()
        if not bool(settable.any()):
            raise NotApplicable("no field of the table can be set by an attacker")
        return settable.nonzero().flatten(), low[settable], high[settable]

    def harden(self, state: State, k: int) -> Trigger:
        fields, values = self.settings(state, k)
        row = torch.zeros(1, len(self.modality.fields))
        row[0, list(fields)] = torch.tensor(values)
        return SetFields(fields=fields, values=tuple(self.modality.project(row)[0, list(fields)].tolist()))


class DimensionsTemplate(ValuesTemplate[Observation]):
    """One or two dimensions of an observation, within its bounds (3 units of scale where there are none)."""

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        low, high = self.modality.bounds or (-FAR, FAR)
        at = torch.arange(int(torch.tensor(self.modality.shape).prod()))
        return at, torch.full((len(at),), low), torch.full((len(at),), high)

    def harden(self, state: State, k: int) -> Trigger:
        dims, values = self.settings(state, k)
        return SetDims(dims=dims, values=values)


#: Templates of each modality class.
TEMPLATES: dict[type[Modality], tuple[type[Template[Any]], ...]] = {
    Image: (PatchTemplate, BlendTemplate),
    Text: (WordsTemplate,),
    Tabular: (FieldsTemplate,),
    Observation: (DimensionsTemplate,),
    Code: (NopsTemplate,),
}


def templates_for(modality: Modality, names: tuple[str, ...] = ()) -> list[Template[Any]]:
    """The templates of a modality, or those named. Raises NotApplicable where there is none."""
    known = [made for kind, found in TEMPLATES.items() if isinstance(modality, kind) for made in found]
    chosen = [made(modality) for made in known if not names or made.name in names]
    if not chosen:
        wanted = f" named {', '.join(names)}" if names else ""
        raise NotApplicable(f"there is no trigger template{wanted} for the modality {modality.name!r}")
    return chosen
