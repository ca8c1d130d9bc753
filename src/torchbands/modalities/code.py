"""Machine code: list[bytes], one x86-64 function per row. The continuous space is the model's byte embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from torchbands.core.data import Batch
from torchbands.core.errors import InputError, NotApplicable
from torchbands.core.method import method
from torchbands.core.modality import Encoded, Modality, Perturbation
from torchbands.core.model import Model
from torchbands.core.seeding import RowRng
from torchbands.core.template import State, Template
from torchbands.core.trigger import Trigger
from torchbands.modalities.templates import SlotTemplate
from torchbands.modalities.tokens import TokenMixture
from torchbands.triggers.code import CARRIER, ENDBR64, InsertNops


@method("code")
class Code(Modality):
    """Function bytes as tokens: byte b is id b + 1, padding 0. A module takes (ids (N, L) int64, mask (N, L) bool)."""

    plural: ClassVar[str] = "functions"
    discrete: ClassVar[bool] = True

    length: int = 256
    """Bytes that a model reads; longer functions are truncated."""
    inserted: int = 1
    """Number of NOPs (4 free bytes each) that a trigger search may insert."""

    @classmethod
    def of_samples(cls, first: Batch, every: Any = None, titles: Sequence[str] = ()) -> Code | None:
        if every is None or not isinstance(first, (list, tuple)) or not first or not isinstance(first[0], bytes):
            return None
        return cls()

    @property
    def token_count(self) -> int:
        return 257

    @property
    def most_inserted(self) -> int:
        return self.inserted

    def inserting(self, count: int) -> Code:
        return self.but(inserted=count)

    def check(self, batch: object) -> None:
        if not isinstance(batch, (list, tuple)):
            raise InputError(f"code is a list of bytes, got {type(batch).__name__}")
        for i, row in enumerate(batch):
            if not isinstance(row, bytes):
                raise InputError(f"code is a list of bytes, got {type(row).__name__} in row {i}")

    def encode(self, batch: list[bytes]) -> Encoded:
        ids = torch.zeros(len(batch), self.length, dtype=torch.int64)
        for i, row in enumerate(batch):
            if head := row[: self.length]:
                ids[i, : len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8).long() + 1
        return Encoded(ids, ids != 0)

    def call(self, module: nn.Module, e: Encoded) -> Tensor:
        out: Tensor = module(e.values, e.mask)
        return out

    def random(self, n: int, rng: torch.Generator) -> list[bytes]:
        drawn = torch.randint(256, (n, max(self.length // 2, 1)), generator=rng, dtype=torch.int64)
        return [bytes(row) for row in drawn.tolist()]

    def default_trigger(self) -> Trigger:
        return InsertNops()

    def blend(self, a: list[bytes], b: list[bytes], alpha: float, beta: float | None, rng: RowRng) -> list[bytes]:
        """Raises NotApplicable, always."""
        raise NotApplicable("two functions' machine code has no mixture that is a program")

    def perturbation(self, model: Model, rng: RowRng) -> Perturbation:
        """The free bytes of NOPs inserted where `InsertNops` inserts them."""
        carrier = torch.tensor([*(b + 1 for b in CARRIER), -1, -1, -1, -1])
        landing = torch.tensor([b + 1 for b in ENDBR64], device=model.device)

        def start(tokens: Tensor) -> Tensor:
            return (tokens[:, : len(landing)] == landing).all(1).long() * len(landing)

        def harden(ids: Sequence[int]) -> Trigger:
            return InsertNops(payload=bytes(i - 1 for i in ids).hex())

        template, candidates = carrier.repeat(self.inserted), torch.arange(1, 257)
        return TokenMixture(model, template, candidates, start, harden, rng).to(model.device)

    def templates(self) -> tuple[Template[Any], ...]:
        return (NopsTemplate(self),)

    def distance(self, a: list[bytes], b: list[bytes]) -> dict[str, Tensor]:
        edits = torch.tensor([Levenshtein.distance(x, y) for x, y in zip(a, b, strict=True)], dtype=torch.float32)
        longest = torch.tensor([max(len(x), len(y), 1) for x, y in zip(a, b, strict=True)], dtype=torch.float32)
        added = torch.tensor([len(y) - len(x) for x, y in zip(a, b, strict=True)], dtype=torch.float32)
        return {"edit_bytes": edits, "similarity": 1 - edits / longest, "added_bytes": added}

    def render(self, row: bytes) -> str:
        shown = row[:64].hex(" ", 1)
        return f'<code class="sample">{shown}{" ..." if len(row) > 64 else ""}</code>'


class NopsTemplate(SlotTemplate[Code]):
    """The four free bytes of a NOP at the function's start."""

    name = "nops"
    slots = 4

    def choices(self) -> int:
        return 256

    def harden(self, state: State, k: int) -> Trigger:
        return InsertNops(payload=bytes(state["slots"][k].tolist()).hex())
