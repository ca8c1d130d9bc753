"""Tables: float32 (N, F) in the fields' own units, with a schema that says what an attacker can really set."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchbands.core.data import Batch
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import Free, Method, method
from torchbands.core.modality import Encoded, Modality, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.template import State, Template
from torchbands.core.trigger import Trigger
from torchbands.core.words import escaped
from torchbands.modalities.templates import ValuesTemplate
from torchbands.triggers.tabular import SetFields


@method("field")
class Field(Method):
    """One column of a table."""

    role: ClassVar[str] = "schema"

    free: ClassVar[Free] = {"title": "text"}

    title: str = ""
    """Column heading."""
    low: float = 0.0
    """Smallest valid value."""
    high: float = 1.0
    """Largest valid value."""
    settable: bool = True
    """Whether an attacker can choose it (a sender chooses a packet's size, not its answer's)."""
    integer: bool = False
    """Whether only whole numbers are valid."""


class FieldPattern(Perturbation):
    """A mask over the settable fields and a value for each, both through a sigmoid; other fields are never touched."""

    def __init__(self, table: Tabular, rng: RowRng) -> None:
        super().__init__()
        self.count, self.table = len(rng), table
        low, high, settable, _ = table.columns()
        self.low: Tensor
        self.high: Tensor
        self.at: Tensor
        self.register_buffer("at", settable.nonzero().flatten())
        self.register_buffer("low", low[settable])
        self.register_buffer("high", high[settable])
        self.mask_logit = nn.Parameter(rng.normal(int(settable.sum())))
        self.value_logit = nn.Parameter(rng.normal(int(settable.sum())))

    def mask(self) -> Tensor:
        """(count, settable fields) in [0, 1]."""
        return self.mask_logit.sigmoid()

    def values(self) -> Tensor:
        """(count, settable fields) in each field's range."""
        return torch.lerp(self.low, self.high, self.value_logit.sigmoid())

    def forward(self, e: Encoded, which: Tensor) -> Encoded:
        written = torch.lerp(e.values[:, self.at], self.values()[which], self.mask()[which])
        return Encoded(e.values.index_copy(1, self.at, written))

    def size(self) -> Tensor:
        """(count,) fields."""
        return self.mask().sum(1)

    def harden(self, k: int) -> Trigger:
        mask, values = self.mask()[k].detach(), self.values()[k].detach()
        chosen = (mask >= min(0.5, float(mask.max()))).nonzero().flatten()
        fields = self.at[chosen].tolist()
        row = torch.zeros(1, len(self.table.fields))
        row[0, fields] = values[chosen].cpu()
        return SetFields(fields=tuple(fields), values=tuple(self.table.project(row)[0, fields].tolist()))


@method("tabular")
class Tabular(Modality):
    """Rows of numbers with a schema. Standardisation belongs inside the model.

    Derived fields (a mean that must follow from a sum and a count) are not recomputed here: mark them not settable.
    """

    fields: tuple[Field, ...] = ()
    """The columns, in order."""

    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(F,) float low, high and bool settable, integer."""
        return (
            torch.tensor([f.low for f in self.fields]),
            torch.tensor([f.high for f in self.fields]),
            torch.tensor([f.settable for f in self.fields], dtype=torch.bool),
            torch.tensor([f.integer for f in self.fields], dtype=torch.bool),
        )

    @classmethod
    def of_samples(cls, first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Tabular | None:
        if every is None or not isinstance(first, Tensor) or first.ndim != 2:
            return None
        return cls.of_table(every, list(titles) or [f"column {i}" for i in range(first.shape[1])])

    @classmethod
    def of_table(cls, x: Tensor, titles: Sequence[str]) -> Tabular:
        """The schema of (N, F) numbers: each column's range as it is here; whole where all are."""
        low, high = x.amin(0).tolist(), x.amax(0).tolist()
        whole = (x == x.round()).all(0).tolist()
        columns = zip(titles, low, high, whole)
        return cls(fields=tuple(Field(title=t, low=a, high=b, integer=w) for t, a, b, w in columns))

    def column_titles(self) -> list[str]:
        return [field.title for field in self.fields]

    def despite_range(self, batch: Batch) -> Batch:
        return self.project(batch) if isinstance(batch, Tensor) and batch.shape[1:] == self.row_shape else batch

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (len(self.fields),)

    def centre_and_spread(self) -> tuple[list[float], list[float]]:
        low, high = self.columns()[:2]
        span = (high - low) / 4
        std = torch.where(span > 0, span, 1.0).tolist()  # a column that never changes has no span
        return ((low + high) / 2).tolist(), std

    def check(self, batch: object) -> None:
        if not isinstance(batch, Tensor):
            raise InputError(f"a table is a tensor (N, {len(self.fields)}), got {type(batch).__name__}")
        if batch.ndim != 2 or batch.shape[1] != len(self.fields):
            raise InputError(f"a table is (N, {len(self.fields)}), got {tuple(batch.shape)}")
        if batch.dtype != torch.float32:
            raise InputError(f"a table is float32, got {batch.dtype}", hint="x.float()")
        low, high, _, integer = (c.to(batch.device) for c in self.columns())
        for what, bad in (
            ("in its range", ~((batch >= low) & (batch <= high))),
            ("a whole number", integer & (batch != batch.round())),
        ):
            if bad.any():
                row, column = bad.nonzero()[0].tolist()
                f = self.fields[column]
                raise InputError(
                    f"field {column} ({f.title or 'untitled'}) is {what} [{f.low:g}, {f.high:g}], "
                    f"got {float(batch[row, column]):g} in row {row}"
                )

    def encode(self, batch: Tensor) -> Encoded:
        return Encoded(batch)

    def project(self, values: Tensor) -> Tensor:
        low, high, _, integer = (c.to(values.device) for c in self.columns())
        inside = torch.minimum(torch.maximum(values, low), high)
        return torch.where(integer, inside.round(), inside)

    def random(self, n: int, rng: torch.Generator) -> Tensor:
        low, high, _, _ = self.columns()
        return self.project(torch.lerp(low, high, torch.rand(n, len(self.fields), generator=rng)))

    def default_trigger(self) -> Trigger:
        """The last two settable fields at their largest values."""
        at = [i for i, f in enumerate(self.fields) if f.settable][-2:]
        if not at:
            raise NotApplicable("no field of the table can be set by an attacker")
        return SetFields(fields=tuple(at), values=tuple(self.fields[i].high for i in at))

    def plain_triggers(self) -> list[Trigger]:
        first = self.default_trigger()
        if len(self.fields) < 6:
            return [first]
        free = [i for i, f in enumerate(self.fields) if f.settable]
        pairs = [free[len(free) - 2 * k - 2 : len(free) - 2 * k] for k in range(3)]
        return [SetFields(fields=tuple(p), values=tuple(self.fields[i].high for i in p)) for p in pairs if len(p) == 2]

    def blend(self, a: Tensor, b: Tensor, alpha: float, beta: float | None, rng: RowRng) -> Tensor:
        return self.project(alpha * a + (1 - alpha if beta is None else beta) * b)

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        if not any(f.settable for f in self.fields):
            raise NotApplicable("no field of the table can be set by an attacker")
        return FieldPattern(self, rng).to(model.device)

    def templates(self) -> tuple[Template[Any], ...]:
        return (FieldsTemplate(self),)

    def distance(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        low, high, settable, integer = (c.to(a.device) for c in self.columns())
        changed = a != b
        invalid = ~((b >= low) & (b <= high)) | (integer & (b != b.round())) | (changed & ~settable)
        return {
            "fields": changed.float().sum(1),
            "violations": invalid.float().sum(1),
            "largest_share_of_range": ((a - b).abs() / (high - low).clamp_min(1e-12)).amax(1),
        }

    def render(self, row: Tensor) -> str:
        cells = zip(self.fields, row.tolist(), strict=True)
        body = "".join(f"<tr><th>{html.escape(escaped(f.title))}</th><td>{value:.6g}</td></tr>" for f, value in cells)
        return f'<table class="sample">{body}</table>'


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
